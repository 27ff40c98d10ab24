"""What a guarded function may know of the attempt it runs in."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.model.request import RequestHead

if TYPE_CHECKING:
    from meshlib.engine.commands import Start

__all__ = ["Attempt", "current_attempt"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a guarded call.

    `number` counts from 1. `endpoint` is what the balancer picked, "host:port" or "unix:path", empty for a cluster
    without endpoints. `deadline` (monotonic seconds, None: none) is when the attempt must be over: the per-try timeout,
    the route's or the caller's, whichever comes first. `request` is the request as an upstream is to see it, after the
    route's rewrites and header mutations.
    """

    number: int
    cluster: str
    endpoint: str
    deadline: float | None
    request: RequestHead

    def remaining(self) -> float | None:
        """Seconds left, never negative; None without a deadline. What a library's `timeout=` wants."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


running: ContextVar[tuple[Any, Start] | None] = ContextVar("meshlib_guarded", default=None)
"""The innermost guarded call, and the attempt it is in."""


def current_attempt() -> Attempt | None:
    """The attempt of the innermost guarded function that is running; None outside, and for a host that passes through
    the mesh.
    """
    found = running.get()
    if found is None:
        return None
    start = found[1]
    return Attempt(start.attempt, start.cluster.name, start.host.address, start.deadline, start.head)
