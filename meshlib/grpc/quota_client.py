"""The client of rate limit quota services: one stream for each service and domain, on a thread that waits for it.

Reports go when they are due, assignments count from the moment they come. A stream that ends is begun anew after a
while, and then tells of every bucket.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.errors import MeshError
from meshlib.grpc.factory import GrpcFactory
from meshlib.grpc.multicallable import Method
from meshlib.grpc.rate_limit_client import credentials_of, target_of, told_of
from meshlib.model.grpc_service import GrpcService
from meshlib.policy.quota import QuotaBook
from meshlib.policy.quota_wire import METHOD, assignments, usage_reports

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

log = logging.getLogger("meshlib.rate_limit_quota")
FIRST_WAIT, LONGEST_WAIT, GROWTH = 1.0, 120.0, 1.6
"""Seconds until a stream that ended is begun anew: gRPC's back-off."""
_METHOD = Method("stream_stream", METHOD, None, None, None)


class QuotaClient:
    """The quotas of one mesh, in this process: a forked child begins with none."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._grpc = GrpcFactory(mesh)
        self._generation = mesh.generation
        self._streams: dict[tuple[GrpcService, str], _Stream] = {}
        self._lock = threading.Lock()  # over the making of streams, not over them

    def book(self, service: GrpcService, domain: str) -> QuotaBook:
        """The buckets of a domain; their stream begins with the first of them."""
        if self._generation != self._mesh.generation:
            self._after_fork()
        found = self._streams.get((service, domain))
        if found is None:
            with self._lock:
                found = self._streams.setdefault((service, domain), _Stream(self._grpc, service, domain))
        return found.book

    def close(self) -> None:
        """End every stream. Their last reports are not sent."""
        for stream in list(self._streams.values()):
            stream.close()

    def _after_fork(self) -> None:
        _parents.append(self._streams)  # to let go of a parent's channel would close it, which may hang
        self._lock = threading.Lock()
        self._streams = {}
        self._generation = self._mesh.generation


_parents: list[Any] = []


class _Stream:
    """The stream of one domain. `_news`: there is a bucket to tell of, or it is over."""

    def __init__(self, factory: GrpcFactory, service: GrpcService, domain: str) -> None:
        self._factory = factory
        self._service = service
        self._news = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._channel: Any = None
        self._call: Any = None
        self.book = QuotaBook(domain, self._on_new)

    def close(self) -> None:
        """End it."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            self._channel.close()

    def _on_new(self) -> None:
        with self._news:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="meshlib-quota", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def _over(self) -> bool:
        return self._closed

    def _run(self) -> None:
        wait, lost = FIRST_WAIT, False
        while not self._closed:
            heard, why = self._listen()
            if heard:
                wait, lost = FIRST_WAIT, False
            if not lost and not self._over():
                name = self._service.cluster or self._service.target
                log.warning("rate limit quota service %s has ended its stream: %s", name, why)
                lost = True
            with self._news:
                self._news.wait_for(self._over, wait * random.uniform(0.8, 1.2))  # noqa: S311  not in step
            wait = min(wait * GROWTH, LONGEST_WAIT)

    def _listen(self) -> tuple[bool, str]:
        """One stream, to its end: whether anything was heard, and why it ended."""
        heard, over = False, threading.Event()
        try:
            self._call = self._open()(self._reports(over), metadata=self._service.metadata or None)
            for data in self._call:
                heard = True
                self.book.assign(assignments(data), time.monotonic())
        except (grpc.RpcError, MeshError, ValueError, OSError) as error:
            return heard, told_of(error)
        finally:
            over.set()
            with self._news:
                self._news.notify_all()
        return heard, "without an error"

    def _open(self) -> Any:
        if self._channel is None:
            self._channel = self._factory.channel(target_of(self._service), credentials=credentials_of(self._service))
        if self._service.cluster:
            return self._channel.stream_stream(METHOD)
        return self._channel.fallback_call(_METHOD)

    def _reports(self, over: threading.Event) -> Iterator[bytes]:
        """What is told on one stream, when it is due. grpcio takes it on a thread of its own."""
        anew = True
        while not over.is_set() and not self._closed:
            usages = list(self.book.reports(time.monotonic(), anew=anew))
            anew = False
            if usages:
                yield usage_reports(self.book.domain, usages)
            with self._news:
                due = self.book.next_report()
                left = None if due is None else due - time.monotonic()
                if (left is None or left > 0) and not over.is_set() and not self._closed:
                    self._news.wait(left)
