"""Attempts that overlap of a call that nobody waits for: whoever has news carries the flow on, one at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from meshlib.drivers.timer import Appointment, later
from meshlib.engine.commands import Cancel, Launch, Listen, Overlap, Start
from meshlib.model.outcome import Outcome

News = tuple[Start, Outcome] | float


class Racers(Protocol):
    """The wire, as overlapping attempts use it."""

    def begin(self, start: Start, ended: Callable[[Outcome], None]) -> None:
        """Begin one attempt, and call `ended` once with its outcome, from any thread."""

    def cancel_one(self, start: Start) -> None:
        """Give one attempt up; it may still end in any way."""

    def discard(self, outcome: Outcome) -> None:
        """Drop a response."""


class CallbackRace:
    """The attempts under way. While the flow listens there is a `_turn`: whoever takes it resumes the flow, everybody
    else leaves his news for the next `listen`. The lock is held over that only, never over a call.
    """

    def __init__(self, wire: Racers, resume: Callable[[News], None]) -> None:
        self._wire = wire
        self._resume = resume
        self._lock = threading.Lock()
        self._running: dict[Start, None] = {}
        self._news: deque[tuple[Start, Outcome]] = deque()
        self._turn: object | None = None
        self._alarm: Appointment | None = None

    def obey(self, command: Overlap) -> News | None:
        """Do what the flow asks for; what it is to hear, None when that is still to come."""
        match command:
            case Launch(start=start):
                return self.launch(start)
            case Listen(until=until):
                return self.listen(until)
            case Cancel(start=start):
                return self.cancel(start)
        raise TypeError(command)

    def launch(self, start: Start) -> float:
        """Begin an attempt."""
        self._running[start] = None
        self._wire.begin(start, partial(self._ended, start))
        return time.monotonic()

    def listen(self, until: float | None) -> News | None:
        """What the flow hears if there is news already; None: it will be resumed with it."""
        with self._lock:
            if self._news:
                return self._news.popleft()
            turn = self._turn = object()
            if until is not None:
                self._alarm = later(until - time.monotonic(), lambda: self._rung(turn))
        return None

    def cancel(self, start: Start) -> float:
        """Give an attempt up; its response, should it have one, is dropped."""
        with self._lock:
            runs = start in self._running
            self._running.pop(start, None)
            unheard = [outcome for ended, outcome in self._news if ended is start]
            self._news = deque(pair for pair in self._news if pair[0] is not start)
        if runs:
            self._wire.cancel_one(start)
        for outcome in unheard:
            self._discard(outcome)
        return time.monotonic()

    def give_up(self) -> bool:
        """Take the turn, so that nobody resumes the flow; False when somebody has it."""
        return self._take(None)

    def close(self) -> None:
        """Give up whatever is still under way."""
        for start in [*self._running, *(start for start, _ in self._news)]:
            self.cancel(start)

    def _ended(self, start: Start, outcome: Outcome) -> None:
        outcome.at = time.monotonic()
        alarm = None
        with self._lock:
            wanted = start in self._running
            self._running.pop(start, None)
            listening = self._turn is not None
            if wanted and not listening:
                self._news.append((start, outcome))
            elif wanted:
                self._turn = None
                alarm, self._alarm = self._alarm, None
        if not wanted:
            self._discard(outcome)
        elif listening:
            if alarm is not None:
                alarm.cancel()
            self._resume((start, outcome))

    def _rung(self, turn: object) -> None:
        if self._take(turn):
            self._resume(time.monotonic())

    def _take(self, turn: object | None) -> bool:
        """Whether the turn (None: whichever it is) was still to be had."""
        with self._lock:
            if self._turn is None or (turn is not None and self._turn is not turn):
                return False
            self._turn = None
            alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        return True

    def _discard(self, outcome: Outcome) -> None:
        if outcome.failure is None:
            self._wire.discard(outcome)
