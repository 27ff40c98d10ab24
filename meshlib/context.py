"""CallContext: what an incoming request hands on to every outgoing call made while it is served.

Server middleware sets it, clients read it. It travels in a context variable, so it follows tasks and
`asyncio.to_thread`, and is per thread otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["CallContext", "current", "peer", "serving"]


@dataclass(frozen=True, slots=True)
class CallContext:
    """`deadline` is monotonic seconds, None when the caller set none. `headers` (lower-case names) go on every outgoing
    call that does not set them itself: trace context, request id. `peer` is the caller's verified identity (a SPIFFE
    ID), empty when it showed none; it is not handed on.
    """

    deadline: float | None = None
    request_id: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    peer: str = ""

    def until(self, deadline: float | None) -> CallContext:
        """The same with another deadline."""
        if deadline == self.deadline:
            return self
        return CallContext(deadline, self.request_id, self.headers, self.peer)


NO_CONTEXT = CallContext()
current: ContextVar[CallContext] = ContextVar("meshlib_call_context", default=NO_CONTEXT)


@contextlib.contextmanager
def serving(context: CallContext) -> Iterator[None]:
    """Serve in a context, and leave none behind with whoever calls the application directly (a test client)."""
    token = current.set(context)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # closed from another context, as an abandoned coroutine is
            current.reset(token)


def peer() -> str:
    """The verified identity of whoever asked for what is being served: a SPIFFE ID; empty when there is none."""
    return current.get().peer
