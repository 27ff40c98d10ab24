"""A stand-in for a rate limit service, so that an example runs by itself: it counts in memory, and never forgets.

In earnest: envoyproxy/ratelimit, or any other server of `envoy.service.ratelimit.v3.RateLimitService`.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc


class TinyLimits(rls_pb2_grpc.RateLimitServiceServicer):  # type: ignore[misc]  # xds-protos ships no types
    """Lets each descriptor pass `requests` times; `address` is `127.0.0.1:port`."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._server = grpc.server(ThreadPoolExecutor(1))
        rls_pb2_grpc.add_RateLimitServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ShouldRateLimit(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Count one for each descriptor; the first that has had enough refuses."""
        response = rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK)
        for descriptor in request.descriptors:
            key = (request.domain, *(f"{entry.key}={entry.value}" for entry in descriptor.entries))
            self._seen[key] += 1
            left = self.requests - self._seen[key]
            code = rls_pb2.RateLimitResponse.OK if left >= 0 else rls_pb2.RateLimitResponse.OVER_LIMIT
            response.overall_code = max(response.overall_code, code)
            limit = rls_pb2.RateLimitResponse.RateLimit(requests_per_unit=self.requests, unit="DAY")
            response.statuses.add(code=code, current_limit=limit, limit_remaining=max(0, left))
        return response

    def close(self) -> None:
        """Stop at once."""
        self._server.stop(None).wait()
