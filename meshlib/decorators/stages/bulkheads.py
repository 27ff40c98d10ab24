"""`bulkhead`: so many at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from meshlib.decorators.errors import of_refusal
from meshlib.decorators.live import Settings
from meshlib.decorators.modes import mode
from meshlib.decorators.pipeline import Decorator
from meshlib.decorators.steps import Below, Park, Running, Steps, Ticket
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


@dataclass(frozen=True, slots=True)
class _Bulkhead:
    limit: int
    wait: float
    queue: int

    def __post_init__(self) -> None:
        if self.limit < 1 or self.wait < 0 or self.queue < 0:
            raise ValueError("limit is 1 or more, wait is seconds, 0 or more, queue is 0 or more")


class bulkhead(Decorator):  # noqa: N801
    """`@bulkhead(10)`: at most `limit` calls at a time, over all functions under this object, threads and tasks alike.
    Others wait up to `wait` seconds (0: not at all), in their order, `queue` of them at most (1 000), or raise
    `UpstreamOverflowError`.
    """

    def __init__(
        self, limit: int, *, wait: float = 0.0, queue: int = 1000, name: str = "", mesh: Mesh | None = None
    ) -> None:
        self._settings = Settings("bulkhead", _Bulkhead(limit, wait, queue), name, mesh)
        self._lock = Lock()  # held over a few operations, never over a call
        self._inside = 0
        self._waiting: deque[Ticket] = deque()

    @property
    def active(self) -> int:
        """The calls inside."""
        return self._inside

    def around(self, call: Running, below: Below) -> Steps:
        """The call with a place inside."""
        if not mode().protects:
            return (yield from below(call))
        policy = self._settings.now()
        ticket = self._enter(policy, call)
        if ticket is not None:
            yield from self._wait(ticket, policy, call)
        try:
            return (yield from below(call))
        finally:
            self._leave()

    def _enter(self, policy: _Bulkhead, call: Running) -> Ticket | None:
        """None: inside. Otherwise a place in the queue, or no ticket's worth of one: it raises."""
        with self._lock:
            if self._inside < policy.limit and not self._waiting:
                self._inside += 1
                return None
            ticket = Ticket()
            if policy.wait > 0 and len(self._waiting) < policy.queue:
                self._waiting.append(ticket)
                return ticket
        raise _full(policy, call)

    def _wait(self, ticket: Ticket, policy: _Bulkhead, call: Running) -> Steps:
        seconds = policy.wait
        if call.deadline is not None:
            seconds = max(0.0, min(seconds, call.deadline - call.clock()))
        try:
            called = yield Park(ticket, seconds)
        except BaseException:
            if not self._withdraw(ticket):
                self._leave()  # its turn came as it went: the place goes on
            raise
        if not called and self._withdraw(ticket):
            raise _full(policy, call)

    def _withdraw(self, ticket: Ticket) -> bool:
        """Out of the queue; False when its turn has come."""
        with self._lock:
            if ticket.called:
                return False
            self._waiting.remove(ticket)
            return True

    def _leave(self) -> None:
        limit = self._settings.now().limit
        with self._lock:
            self._inside -= 1
            called = []
            while self._waiting and self._inside < limit:
                self._inside += 1
                called.append(self._waiting.popleft())
            for ticket in called:
                ticket.call()


def _full(policy: _Bulkhead, call: Running) -> Exception:
    return of_refusal(CallFailure(ResponseFlag.UO, f"the bulkhead is full: {policy.limit} calls at a time", call.name))
