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


class Marks:
    """Whether anybody wants to know of attempts: `meshlib.telemetry.logs`, once it is in use."""

    wanted = False


attempt: ContextVar[Attempt | None] = ContextVar("meshlib_attempt", default=None)
