"""A pybreaker storage that is far away (Redis, a database), kept near: calls read what was last known of it, and what
they write is written by a thread of its own. So no call and no event loop ever waits for it.

What other processes do is seen within `REFRESH` seconds of a call. The storage is asked only while there are calls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pybreaker import CircuitBreakerStorage

REFRESH = 0.1
"""Seconds that what is known may be old when a call asks."""
IDLE = 5.0
"""Seconds without a call after which the thread ends; the next call begins another one."""
log = logging.getLogger("meshlib.breaker")
Write = Callable[[], None]


class _Known(NamedTuple):
    """What is known of the storage. `stored_at` is what it makes of `opened_at`: Redis keeps whole seconds, and never
    goes back. `ours`: that of `opened_at` has not been read back yet.
    """

    state: str = "closed"
    counter: int = 0
    success_counter: int = 0
    opened_at: datetime | None = None
    stored_at: datetime | None = None
    ours: bool = False


class RemoteStorage:
    """With the attributes and methods of the storage it stands for. Until that has answered once, the breaker counts as
    closed. A storage that fails is logged once until it answers again; what is known counts meanwhile.
    """

    def __init__(self, storage: CircuitBreakerStorage) -> None:
        self._storage = storage
        self._known = _Known()
        self._changing = threading.Lock()  # around a change of what is known, and nothing else
        self._writes: SimpleQueue[Write | None] = SimpleQueue()
        self._fresh_until = 0.0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # around the start of a thread
        self._failing = False

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        if time.monotonic() >= self._fresh_until:
            self._fresh_until = time.monotonic() + REFRESH
            self._do(None)
        return self._known.state

    @state.setter
    def state(self, state: str) -> None:
        believed = self._known.state

        def write() -> None:
            if self._storage.state == believed:  # else somebody else was first, which is read next
                self._storage.state = state

        self._change(lambda known: known._replace(state=state), write)

    @property
    def counter(self) -> int:
        """Consecutive failures, of all processes."""
        return self._known.counter

    @property
    def success_counter(self) -> int:
        """Successful probes, of all processes."""
        return self._known.success_counter

    @property
    def opened_at(self) -> datetime | None:
        """When it was opened last, by whoever did."""
        return self._known.opened_at

    @opened_at.setter
    def opened_at(self, at: datetime) -> None:
        self._change(
            lambda known: known._replace(opened_at=at, ours=True), lambda: setattr(self._storage, "opened_at", at)
        )

    def increment_counter(self) -> None:
        """One failure more."""
        self._change(lambda known: known._replace(counter=known.counter + 1), self._storage.increment_counter)

    def reset_counter(self) -> None:
        """No failures; not written where none are known of, which is after nearly every call of a closed breaker."""
        if self._known.counter or self._known.state != "closed":
            self._change(lambda known: known._replace(counter=0), self._storage.reset_counter)

    def increment_success_counter(self) -> None:
        """One successful probe more."""
        self._change(
            lambda known: known._replace(success_counter=known.success_counter + 1),
            self._storage.increment_success_counter,
        )

    def reset_success_counter(self) -> None:
        """No successful probes."""
        self._change(lambda known: known._replace(success_counter=0), self._storage.reset_success_counter)

    def settle(self, timeout: float = 5.0) -> bool:
        """Wait until all that calls have written is written, and read back; for tests and for the end of a program."""
        done = threading.Event()

        def read() -> None:
            self._read()
            done.set()

        self._do(read)
        return done.wait(timeout)

    def _change(self, change: Callable[[_Known], _Known], write: Write) -> None:
        with self._changing:
            self._known = change(self._known)
            self._writes.put(write)
        self._awake()

    def _do(self, write: Write | None) -> None:
        self._writes.put(write)
        self._awake()

    def _awake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._begin()

    def _begin(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="meshlib-breaker-storage", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                write = self._writes.get(timeout=IDLE)
            except Empty:
                with self._starting:
                    if self._writes.empty():
                        self._thread = None
                        return
                continue
            try:
                if write is not None:
                    write()
                if self._writes.empty():
                    self._read()
            except Exception as error:  # noqa: BLE001  whatever a user's storage raises
                if not self._failing:
                    log.warning("the storage of a circuit breaker fails, what is known counts: %r", error)
                self._failing = True
            else:
                self._failing = False

    def _read(self) -> None:
        storage, before = self._storage, self._known
        stored_at: Any = storage.opened_at
        found = _Known(storage.state, storage.counter, storage.success_counter, before.opened_at, stored_at)
        if not before.ours and stored_at != before.stored_at:
            found = found._replace(opened_at=stored_at)
        with self._changing:
            if self._known is before and self._writes.empty():  # else it is read again after what is to be written
                self._known = found
