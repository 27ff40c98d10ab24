"""One attempt of a call with a response stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from meshlib.drivers.timer import Appointment, later
from meshlib.engine.commands import Start
from meshlib.grpc.metadata import received
from meshlib.grpc.outcome import DEADLINE_EXCEEDED, AttemptError, early_metadata
from meshlib.grpc.subchannels import SubChannel
from meshlib.model.outcome import Failure, Outcome

OPEN, CLAIMED, COMMITTED, LOST = range(4)
"""Nothing of a response yet; somebody is telling the flow what became of it; it is the call's; it failed."""


class Attempt:
    """`call` is grpcio's. The `phase` leaves OPEN once, by whoever claims it; `readers` are inside `next(call)`.

    `ended` tells the flow; without it (and `start`, `subchannel`) the call is a plain one outside the mesh.
    """

    __slots__ = (
        "_appointments",
        "call",
        "ended",
        "finished",
        "heard",
        "over",
        "phase",
        "readers",
        "start",
        "subchannel",
        "timed_out",
    )

    def __init__(
        self,
        call: Any,
        ended: Callable[[Outcome], None] | None,
        start: Start | None = None,
        subchannel: SubChannel | None = None,
    ) -> None:
        self.call = call
        self.ended = ended
        self.start = start
        self.subchannel = subchannel
        self.phase = OPEN
        self.over = False
        self.finished = False
        self.readers = 0
        self.heard = 0.0
        self.timed_out: Failure | None = None
        self._appointments: list[Appointment] = []

    def watch(self) -> None:
        """Bound the wait for the response by the attempt's own deadline, and the endpoint's silence by the idle limit:
        the call's deadline, which its stream may use up, is grpcio's to keep.
        """
        start = self.start
        if start is None:
            return
        if start.deadline is not None and start.deadline is not start.final_deadline:
            self._later(start.deadline - time.monotonic(), self._per_try)
        if start.idle is not None:
            self.heard = time.monotonic()
            self._later(start.idle.seconds, self._idle)

    def leave(self) -> None:
        """The call is over: nothing is kept for it."""
        for appointment in self._appointments:
            appointment.cancel()
        if self.subchannel is not None:
            self.subchannel.leave(self.start)

    def going_on(self) -> bool:
        """Whether the call has no status yet."""
        active: bool = self.call.is_active()
        return active

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The response's headers, as far as they have come."""
        return received(early_metadata(self.call))

    def out_of_time(self, failure: Failure) -> Outcome:
        """The outcome of an attempt that was cut off here."""
        return Outcome(failure=failure, error=AttemptError(DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._appointments = [later(seconds, work)]

    def _per_try(self) -> None:
        start = self.start
        if start is not None and self.phase == OPEN and early_metadata(self.call) is None:
            self._cut_off(start.on_deadline)

    def _idle(self) -> None:
        start = self.start
        if start is None or start.idle is None or self.over:
            return
        left = self.heard + start.idle.seconds - time.monotonic()
        if left > 0:
            self._later(left, self._idle)
        else:
            self._cut_off(start.idle.failure)

    def _cut_off(self, failure: Failure) -> None:
        self.timed_out = failure
        self.call.cancel()
