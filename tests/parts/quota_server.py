"""A rate limit quota service of our own (RLQS has no public server): it assigns what a test says, and keeps reports."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from envoy.service.rate_limit_quota.v3 import rlqs_pb2, rlqs_pb2_grpc
from google.protobuf import json_format

Bucket = dict[str, str]


class QuotaServer(rlqs_pb2_grpc.RateLimitQuotaServiceServicer):  # type: ignore[misc]  # xds-protos ships no types
    """``answers(bucket)`` gives what a bucket is assigned when it is first heard of on a stream (JSON of a
    `BucketAction` without its id; None: nothing). ``assign`` says it at any time, ``reports`` are all that came.
    """

    def __init__(self, answers: Callable[[Bucket], dict[str, Any] | None] = lambda bucket: None, port: int = 0) -> None:
        self.answers = answers
        self.reports: list[tuple[str, Bucket, int, int]] = []
        self.streams = 0
        self._queues: list[queue.Queue[Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        rlqs_pb2_grpc.add_RateLimitQuotaServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def assign(self, bucket: Bucket, action: dict[str, Any]) -> None:
        """Say it on every stream."""
        for each in self._queues:
            each.put(_response(bucket, action))

    def used(self, **bucket: str) -> tuple[int, int]:
        """How many requests of a bucket have been told of: allowed, denied."""
        mine = [report for report in self.reports if report[1] == bucket]
        return sum(report[2] for report in mine), sum(report[3] for report in mine)

    def wait(self, what: Callable[[], Any], timeout: float = 10.0) -> Any:
        """The first true value of what()."""
        until = time.monotonic() + timeout
        while not (found := what()):
            assert time.monotonic() < until, f"not within {timeout} s: {self.reports}"
            time.sleep(0.005)
        return found

    def stop(self) -> None:
        for each in self._queues:
            each.put(None)
        self._server.stop(None).wait()

    def StreamRateLimitQuotas(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        mine: queue.Queue[Any] = queue.Queue()
        self.streams += 1
        self._queues.append(mine)
        threading.Thread(target=self._read, args=(requests, mine), daemon=True).start()
        while (response := mine.get()) is not None:
            yield response

    def _read(self, requests: Iterator[Any], mine: "queue.Queue[Any]") -> None:
        known = []
        try:
            for message in requests:
                for usage in message.bucket_quota_usages:
                    bucket = {entry: usage.bucket_id.bucket[entry] for entry in usage.bucket_id.bucket}
                    if bucket not in known:
                        known.append(bucket)
                        action = self.answers(bucket)
                        if action is not None:
                            mine.put(_response(bucket, action))
                    self.reports.append((message.domain, bucket, usage.num_requests_allowed, usage.num_requests_denied))
        except grpc.RpcError:
            pass
        mine.put(None)


def _response(bucket: Bucket, action: dict[str, Any]) -> Any:
    said = {"bucket_action": [{"bucket_id": {"bucket": bucket}, **action}]}
    return json_format.ParseDict(said, rlqs_pb2.RateLimitQuotaResponse())
