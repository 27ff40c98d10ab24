"""What a driver needs from the outside: a wire for attempts, a clock, and the mesh to wait for configuration."""

from __future__ import annotations

from typing import Protocol

from meshlib.engine.commands import Start
from meshlib.model.outcome import Outcome


class SyncWire(Protocol):
    """Carries attempts of one protocol, blocking."""

    def attempt(self, start: Start) -> Outcome:
        """One attempt up to response headers; failures are outcomes, not exceptions."""

    def discard(self, outcome: Outcome) -> None:
        """Drop a response that will be retried."""


class AsyncWire(Protocol):
    """Carries attempts of one protocol on the running event loop."""

    async def attempt(self, start: Start) -> Outcome:
        """One attempt up to response headers; failures are outcomes, not exceptions."""

    async def discard(self, outcome: Outcome) -> None:
        """Drop a response that will be retried."""


class SyncWaiter(Protocol):
    """Waits for configuration, blocking."""

    def wait_for(self, authority: str, deadline: float) -> None:
        """Return when the plan speaks for `authority`, or knows that nothing will, or at `deadline` (monotonic)."""


class AsyncWaiter(Protocol):
    """Waits for configuration on the running event loop."""

    async def await_for(self, authority: str, deadline: float) -> None:
        """Return when the plan speaks for `authority`, or knows that nothing will, or at `deadline` (monotonic)."""
