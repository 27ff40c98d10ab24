"""What a driver needs from the outside: a wire for attempts, a clock, and the mesh to wait for configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.engine.commands import Mirror, Start
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.drivers.racing import Apart


class SyncWire(Protocol):
    """Carries attempts of one protocol, blocking."""

    def attempt(self, start: Start) -> Outcome:
        """One attempt up to response headers; failures are outcomes, not exceptions."""

    def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Drop a response that will be retried, `bodiless` without the request's body from then on."""

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the request, which is nobody's concern from then on. Never raises, never waits."""


class OverlappingWire(SyncWire, Protocol):
    """The wire of calls that may hedge (`RequestHead.overlaps`)."""

    def apart(self, start: Start, apart: Apart) -> Outcome:
        """`attempt`, beside others and on another thread than the caller's; `apart` may give it up meanwhile."""


class AsyncWire(Protocol):
    """Carries attempts of one protocol on the running event loop."""

    async def attempt(self, start: Start) -> Outcome:
        """One attempt up to response headers; failures are outcomes, not exceptions."""

    async def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Drop a response that will be retried, `bodiless` without the request's body from then on."""

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the request, which is nobody's concern from then on. Never raises, never waits."""


class AsyncOverlappingWire(AsyncWire, Protocol):
    """The wire of calls that may hedge (`RequestHead.overlaps`)."""

    async def apart(self, start: Start) -> Outcome:
        """`attempt`, beside others; its task may be cancelled."""


class SyncWaiter(Protocol):
    """Waits for configuration, blocking."""

    def wait_for(self, authority: str, deadline: float) -> None:
        """Return when the plan speaks for `authority`, or knows that nothing will, or at `deadline` (monotonic)."""


class AsyncWaiter(Protocol):
    """Waits for configuration on the running event loop."""

    async def await_for(self, authority: str, deadline: float) -> None:
        """Return when the plan speaks for `authority`, or knows that nothing will, or at `deadline` (monotonic)."""
