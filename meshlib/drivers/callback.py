"""The driver for calls that nobody waits for: whoever has news carries the flow on, and nobody blocks.

Twin of the other drivers in shape only. What has to wait for something that blocks (configuration, a shared limit) does
so on a thread of its own, because it is rare; back-off waits on the process's timer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from meshlib.drivers.racing_callback import CallbackRace, News
from meshlib.drivers.timer import Appointment, later
from meshlib.drivers.wire import SyncWaiter
from meshlib.engine.commands import (
    Command,
    Discard,
    Fetch,
    Flow,
    Mirror,
    Overlap,
    Query,
    Start,
    Terminal,
    Wait,
    abandon,
)
from meshlib.model.outcome import Outcome


class CallbackWire(Protocol):
    """Carries attempts of one protocol without blocking."""

    def begin(self, start: Start, ended: Callable[[Outcome], None]) -> None:
        """Begin one attempt, and call `ended` once with its outcome, from any thread."""

    def cancel_one(self, start: Start) -> None:
        """Give up one of several attempts; it may still end in any way."""

    def discard(self, outcome: Outcome) -> None:
        """Drop a response that will be retried."""

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the request, which is nobody's concern from then on. Never raises, never waits."""


class CallbackDriver:
    """Runs a flow to its terminal command, which `done` is told. After a `Commit` the flow is alive and wants a
    `BodyEnd`.

    The flow is suspended whenever something is under way, so whoever brings the news is alone with it. `give_up` may
    come at any time from any thread: then the flow is closed by whoever is alone with it next, and `done` hears None.
    """

    __slots__ = ("_done", "_flow", "_given_up", "_race", "_sleeping", "_waiter", "_wire")

    def __init__(
        self, flow: Flow, wire: CallbackWire, waiter: SyncWaiter, done: Callable[[Terminal | None], None]
    ) -> None:
        self._flow = flow
        self._wire = wire
        self._waiter = waiter
        self._done = done
        self._given_up = False
        self._sleeping: Appointment | None = None
        self._race: CallbackRace | None = None

    def start(self) -> None:
        """Begin, on the calling thread."""
        self._guarded(lambda: next(self._flow))

    def give_up(self) -> None:
        """The caller went away. An attempt under way is the wire's to cancel: its end is waited for."""
        self._given_up = True
        sleeping = self._sleeping
        asleep = sleeping is not None and sleeping.cancel()
        if asleep or (self._race is not None and self._race.give_up()):
            self._abandon()

    def _ended(self, outcome: Outcome) -> None:
        outcome.at = time.monotonic()
        self._guarded(lambda: self._flow.send(outcome))

    def _woken(self) -> None:
        self._sleeping = None
        self._guarded(lambda: self._flow.send(time.monotonic()))

    def _heard(self, news: News) -> None:
        self._guarded(lambda: self._flow.send(news))

    def _guarded(self, step: Callable[[], Command]) -> None:
        """One step of the flow and what it asks for. Whatever is raised meanwhile closes the flow."""
        if self._given_up:
            self._abandon()
            return
        try:
            self._obey(step())
        except BaseException:
            self._abandon()
            raise

    def _obey(self, command: Command) -> None:
        while True:
            match command:
                case Start():
                    self._wire.begin(command, self._ended)
                    return
                case Wait(seconds=seconds):
                    self._sleep(seconds)
                    return
                case Discard(outcome=dropped):
                    self._wire.discard(dropped)
                    command = self._flow.send(time.monotonic())
                case Mirror() as copy:
                    self._wire.mirror(copy)
                    command = self._flow.send(time.monotonic())
                case Overlap():
                    self._race = self._race or CallbackRace(self._wire, self._heard)
                    news = self._race.obey(command)
                    if news is None:
                        return
                    command = self._flow.send(news)
                case Query() | Fetch():
                    threading.Thread(target=self._ask, args=(command,), name="meshlib-ask", daemon=True).start()
                    return
                case _:
                    self._done(command)
                    return

    def _sleep(self, seconds: float) -> None:
        self._sleeping = sleeping = later(seconds, self._woken)
        if self._given_up and sleeping.cancel():  # given up just before there was anything to wake
            self._abandon()

    def _ask(self, command: Query | Fetch) -> None:
        if isinstance(command, Query):
            answer = command.question.ask()
            self._guarded(lambda: self._flow.send((answer, time.monotonic())))
        else:
            self._waiter.wait_for(command.authority, command.deadline)
            self._guarded(lambda: self._flow.send(time.monotonic()))

    def _abandon(self) -> None:
        if self._race is not None:
            self._race.close()
        abandon(self._flow, time.monotonic())
        self._done(None)
