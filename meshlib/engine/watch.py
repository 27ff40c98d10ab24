"""A request being served, for whoever traces it and whoever counts it (`RequestWatch`), and for filters that want to
hear of its end (`Endings`). None where nobody does.
"""

from __future__ import annotations

from typing import ClassVar

from meshlib.engine.ends import Admit, End
from meshlib.engine.events import RequestServed
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.telemetry.tracing import ServerTrace

_TOLD: tuple[Admit, ...] = ()


class RequestWatch:
    """One request, from its arrival to the end of its response. Times are monotonic seconds."""

    __slots__ = ("_began", "_head", "_runtime", "_trace")
    looks_on: ClassVar[bool] = True

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
        whole: bool = True,
    ) -> None:
        """The response is over; no status: there was none. `whole` False: it broke, or somebody gave it up."""
        if self._trace is not None:
            self._trace.ended(now, status, grpc_status, route, flag)
        head, took = self._head, now - self._began
        self._runtime.emit(
            lambda: RequestServed(now, head.method, head.path_only, route, status, grpc_status, flag, took)
        )


class Endings:
    """The same for what filters admitted, and for `inner`, the watch of one request, where there is one. The end counts
    once. A server that forgets a request altogether ends it when it forgets it.
    """

    __slots__ = ("_admitted", "_at", "inner")

    def __init__(self, now: float, admit: Admit, inner: RequestWatch | None = None) -> None:
        self._admitted: tuple[Admit, ...] = (admit,)
        self._at = now
        self.inner = inner

    @property
    def looks_on(self) -> bool:
        """Whether somebody looks on while it is served, and not only at its end."""
        return self.inner is not None

    def add(self, admit: Admit) -> None:
        """One filter more."""
        self._admitted = (*self._admitted, admit)

    def enter(self) -> None:
        """The application runs on this thread or task."""
        if self.inner is not None:
            self.inner.enter()

    def leave(self) -> None:
        """It does so no longer."""
        if self.inner is not None:
            self.inner.leave()

    def ended(
        self,
        now: float,
        status: int | None,
        *,
        grpc_status: int | None = None,
        route: str = "",
        flag: ResponseFlag | None = None,
        whole: bool = True,
    ) -> None:
        """The response is over, as `RequestWatch.ended`; the filter that was asked last hears of it first."""
        if self._admitted:
            answered = status is not None or grpc_status is not None
            self._tell(End(now, status, grpc_status, flag, whole and answered))
        inner, self.inner = self.inner, None
        if inner is not None:
            inner.ended(now, status, grpc_status=grpc_status, route=route, flag=flag, whole=whole)

    def _tell(self, end: End) -> None:
        admitted, self._admitted = self._admitted, _TOLD
        for admit in reversed(admitted):
            if admit.on_end is not None:
                admit.on_end(end)

    def __del__(self) -> None:
        if self._admitted:
            self._tell(End(self._at))


Watch = RequestWatch | Endings


def watch(runtime: Runtime, head: RequestHead, now: float, *, spans: bool = True) -> RequestWatch | None:
    """A watch of a request that arrived at `now`; None when nobody looks. `spans` False: somebody else makes them."""
    tracing = runtime.tracing if spans else None
    if tracing is None and not runtime.observers:
        return None
    return RequestWatch(runtime, head, now, None if tracing is None else tracing.request(head, now))
