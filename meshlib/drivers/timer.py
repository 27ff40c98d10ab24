"""One thread that waits for all who would otherwise each need a thread to wait in."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

log = logging.getLogger("meshlib")
_IDLE = 10.0  # seconds without anything to wait for, after which the thread ends


class Appointment:
    """Something to be done later, once, unless it is cancelled before."""

    __slots__ = ("_once", "_work")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._once = [None]

    def cancel(self) -> bool:
        """Whether that came in time: then it will not be done, and nothing of it is kept alive."""
        try:
            self._once.pop()  # atomic: one of cancel and keep gets it
        except IndexError:
            return False
        self._work = _nothing
        return True

    def keep(self) -> None:
        """Do it."""
        work = self._work
        if self.cancel():
            try:
                work()
            except Exception:
                log.exception("%r raised", work)


class Timer:
    """Appointments by time, kept on a thread that exists while there are any."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Appointment]] = []
        self._changed = threading.Condition(threading.Lock())
        self._count = itertools.count()
        self._thread: threading.Thread | None = None

    def later(self, seconds: float, work: Callable[[], None]) -> Appointment:
        """Do `work` in `seconds`, on the timer's thread: it must be quick."""
        appointment = Appointment(work)
        entry = (time.monotonic() + max(0.0, seconds), next(self._count), appointment)
        with self._changed:
            heapq.heappush(self._due, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="meshlib-timer", daemon=True)
                self._thread.start()
            elif self._due[0] is entry:
                self._changed.notify()
        return appointment

    def _run(self) -> None:
        while (appointment := self._next()) is not None:
            appointment.keep()

    def _next(self) -> Appointment | None:
        """The next appointment, when it is due; None after a while without any."""
        with self._changed:
            while True:
                if not self._due:
                    if not self._changed.wait(_IDLE) and not self._due:
                        self._thread = None
                        return None
                    continue
                left = self._due[0][0] - time.monotonic()
                if left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)


_shared = Timer()


def later(seconds: float, work: Callable[[], None]) -> Appointment:
    """Do `work` in `seconds`, on the process's timer thread: it must be quick."""
    return _shared.later(seconds, work)


def _nothing() -> None:
    """What is left of a cancelled appointment until its time comes."""


def _anew() -> None:
    global _shared  # noqa: PLW0603  the parent's thread, and perhaps its lock, are not the child's
    _shared = Timer()


with contextlib.suppress(AttributeError):  # no fork on this system
    os.register_at_fork(after_in_child=_anew)
