"""The attempt that the current thread or task is in, for log records written meanwhile."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Attempt(Protocol):
    """One attempt of a call."""

    def ids(self) -> tuple[int, int, bool]:
        """Trace id, span id, whether it is sampled."""

    @property
    def cluster(self) -> str:
        """The cluster it goes to."""

    @property
    def endpoint(self) -> str:
        """`host:port`."""

    @property
    def in_flight(self) -> bool:
        """Whether it still goes on."""


class Marks:
    """Whether anybody wants to know of attempts: `meshlib.telemetry.logs`, once it is in use."""

    wanted = False


attempt: ContextVar[Attempt | None] = ContextVar("meshlib_attempt", default=None)


def begun(mine: Attempt) -> Attempt | None:
    """An attempt begins here. What it is made within (a guarded function's attempt), for `over`."""
    outer = attempt.get()
    attempt.set(mine)
    return outer


def over(mine: Attempt, outer: Attempt | None) -> None:
    """It is over: what it was made within goes on, unless that is over too. Another one's end is not ours to tell."""
    if attempt.get() is mine:
        attempt.set(outer if outer is not None and outer.in_flight else None)
