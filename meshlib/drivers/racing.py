"""Attempts of one blocking call that overlap, each on a thread of its own: only calls that hedge come here."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable

from meshlib.drivers.wire import OverlappingWire
from meshlib.engine.commands import Cancel, Launch, Listen, Overlap, Start
from meshlib.model.outcome import Outcome


class Apart:
    """An attempt that may be given up from another thread. The wire says how, with `on_cancel`."""

    __slots__ = ("_cancel", "_lock", "cancelled")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancel: Callable[[], None] | None = None
        self.cancelled = False

    def on_cancel(self, cancel: Callable[[], None] | None) -> None:
        """What ends the attempt early; called at once when that was asked for already. None: nothing any more."""
        with self._lock:
            self._cancel = cancel
            late = self.cancelled
        if late and cancel is not None:
            cancel()

    def cancel(self) -> None:
        """Give the attempt up."""
        with self._lock:
            self.cancelled = True
            cancel = self._cancel
        if cancel is not None:
            cancel()


class Race:
    """The attempts under way. What one raises that is no outcome (the caller's own) is raised by `listen`.

    Of an attempt's end and its cancelling exactly one takes its place in `_running`: so each response is either heard
    of or dropped.
    """

    def __init__(self, wire: OverlappingWire) -> None:
        self._wire = wire
        self._running: dict[Start, Apart] = {}
        self._ended: queue.SimpleQueue[tuple[Start, Outcome | BaseException]] = queue.SimpleQueue()

    def obey(self, command: Overlap) -> tuple[Start, Outcome] | float:
        """Do what the flow asks for; what it is to hear."""
        match command:
            case Launch(start=start):
                return self.launch(start)
            case Listen(until=until):
                return self.listen(until)
            case Cancel(start=start):
                return self.cancel(start)
        raise TypeError(command)

    def launch(self, start: Start) -> float:
        """Begin an attempt, in a copy of the caller's context."""
        apart = self._running[start] = Apart()
        work = contextvars.copy_context().run
        threading.Thread(target=work, args=(self._attempt, start, apart), name="meshlib-hedge", daemon=True).start()
        return time.monotonic()

    def listen(self, until: float | None) -> tuple[Start, Outcome] | float:
        """What the flow hears: the next end of an attempt, or that it is `until`."""
        try:
            left = None if until is None else max(0.0, until - time.monotonic())
            start, ended = self._ended.get(timeout=left)
        except queue.Empty:
            return time.monotonic()
        if isinstance(ended, BaseException):
            raise ended
        return start, ended

    def cancel(self, start: Start) -> float:
        """Give an attempt up; its response, should it have one, is dropped."""
        apart = self._running.pop(start, None)
        if apart is not None:
            apart.cancel()
        else:
            self._drop(start)
        return time.monotonic()

    def close(self) -> None:
        """Give up whatever is still under way."""
        for start in list(self._running):
            self.cancel(start)
        self._drop(None)

    def _attempt(self, start: Start, apart: Apart) -> None:
        ended: Outcome | BaseException
        try:
            ended = self._wire.apart(start, apart)
            ended.at = time.monotonic()
        except BaseException as error:  # noqa: BLE001  it is the caller's, and raised where the caller waits
            ended = error
        if self._running.pop(start, None) is not None:
            self._ended.put((start, ended))
        elif isinstance(ended, Outcome) and ended.failure is None:
            self._wire.discard(ended, False)

    def _drop(self, unwanted: Start | None) -> None:
        """Take an attempt's end (None: every attempt's) out of what is still to be heard of."""
        kept = []
        while not self._ended.empty():
            start, ended = self._ended.get()
            if unwanted is not None and start is not unwanted:
                kept.append((start, ended))
            elif isinstance(ended, Outcome) and ended.failure is None:
                self._wire.discard(ended, False)
        for pair in kept:
            self._ended.put(pair)
