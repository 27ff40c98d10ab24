"""CallContext: what an incoming request hands on to every outgoing call made while it is served.

Server middleware sets it, clients read it. It travels in a context variable, so it follows tasks and
`asyncio.to_thread`, and is per thread otherwise.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["CallContext", "current"]


@dataclass(frozen=True, slots=True)
class CallContext:
    """`deadline` is monotonic seconds, None when the caller set none. `headers` (lower-case names) go on every outgoing
    call that does not set them itself: trace context, request id.
    """

    deadline: float | None = None
    request_id: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


NO_CONTEXT = CallContext()
current: ContextVar[CallContext] = ContextVar("meshlib_call_context", default=NO_CONTEXT)
