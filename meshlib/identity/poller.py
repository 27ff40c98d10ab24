"""One thread per process that looks at files from time to time, for all that asked. It begins with the first of them.

Looking is a few `stat` calls; notifications would not make it cheaper, and do not come on every file system a secret
may be mounted from.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import Protocol

log = logging.getLogger("meshlib.identity")


class Watched(Protocol):
    """What is looked at: `poll` every `refresh_interval` seconds."""

    refresh_interval: float

    def poll(self) -> None:
        """Look, and act on what is new."""


class Poller:
    """Holds what it looks at weakly: an identity nobody uses any more is not looked at any more."""

    _lock: threading.Lock
    _wake: threading.Event
    _due: weakref.WeakKeyDictionary[Watched, float]
    _thread: threading.Thread | None

    def __init__(self) -> None:
        self._start_anew()

    def add(self, watched: Watched) -> bool:
        """Look at this too, from now on; False when it is looked at already."""
        if watched in self._due:
            return False
        with self._lock:
            self._due.setdefault(watched, time.monotonic() + watched.refresh_interval)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="meshlib-identity", daemon=True)
                self._thread.start()
        self._wake.set()
        return True

    def remove(self, watched: Watched) -> None:
        """Look at this no more."""
        with self._lock:
            self._due.pop(watched, None)

    def forget(self) -> None:
        """In a forked child: the thread is the parent's. What it looked at is added again when it is next used."""
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._due = weakref.WeakKeyDictionary()
        self._thread = None

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            with self._lock:
                due = [watched for watched, moment in self._due.items() if moment <= now]
                self._due.update((watched, now + watched.refresh_interval) for watched in due)
                moments = list(self._due.values())  # in one go: what nobody uses any more may vanish at any moment
                if not moments:
                    self._thread = None
                    return
            while due:  # emptied, so that nothing is held while waiting
                _poll(due.pop())
            self._wake.wait(max(min(moments) - time.monotonic(), 0.0))
            self._wake.clear()


def _poll(watched: Watched) -> None:
    try:
        watched.poll()
    except Exception:
        log.exception("looking at %r failed", watched)


POLLER = Poller()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POLLER.forget)
