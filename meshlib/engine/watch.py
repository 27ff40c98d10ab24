"""RequestWatch: a request being served, for whoever traces it and whoever counts it. None where nobody does."""

from __future__ import annotations

from meshlib.engine.events import RequestServed
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.telemetry.tracing import ServerTrace


class RequestWatch:
    """One request, from its arrival to the end of its response. Times are monotonic seconds."""

    __slots__ = ("_began", "_head", "_runtime", "_trace")

    def __init__(self, runtime: Runtime, head: RequestHead, now: float, trace: ServerTrace | None) -> None:
        self._runtime = runtime
        self._head = head
        self._began = now
        self._trace = trace

    def enter(self) -> None:
        """The application runs on this thread or task."""
        if self._trace is not None:
            self._trace.enter()

    def leave(self) -> None:
        """It does so no longer."""
        if self._trace is not None:
            self._trace.leave()

    def ended(
        self,
        now: float,
        status: int | None,
        *,
        grpc_status: int | None = None,
        route: str = "",
        flag: ResponseFlag | None = None,
    ) -> None:
        """The response is complete; no status: there was none."""
        if self._trace is not None:
            self._trace.ended(now, status, grpc_status, route, flag)
        head, took = self._head, now - self._began
        self._runtime.emit(
            lambda: RequestServed(now, head.method, head.path_only, route, status, grpc_status, flag, took)
        )


def watch(runtime: Runtime, head: RequestHead, now: float, *, spans: bool = True) -> RequestWatch | None:
    """A watch of a request that arrived at `now`; None when nobody looks. `spans` False: somebody else makes them."""
    tracing = runtime.tracing if spans else None
    if tracing is None and not runtime.observers:
        return None
    return RequestWatch(runtime, head, now, None if tracing is None else tracing.request(head, now))
