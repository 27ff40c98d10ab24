"""Graceful shutdown of a server behind a load balancer that needs time to notice.

A server that stops listening the moment SIGTERM arrives refuses the connections its callers still send. So, in order:

1. readiness fails and what was registered is deregistered: no new caller is sent here;
2. for `seconds` the server goes on accepting, and asks each caller to close its connection (`Connection: close`);
3. the signal is handed to the server's own handler: it stops listening and finishes what is in flight;
4. at lifespan shutdown, after the application's own, the mesh closes.

Liveness is not touched: a draining process is healthy. A second SIGTERM, or SIGINT, goes to the server at once.

An application that wants to know, or has something to deregister, makes the `Drain` itself and hands it over:

    drain = Drain(seconds=10)
    drain.on_drain(leave_the_registry)
    app.add_middleware(MeshMiddleware, mesh=mesh, drain=drain)

A server with an event loop goes on serving on it meanwhile. One without (gunicorn's `sync` and `gthread` workers) goes
on in its main thread, and a thread of ours hands the signal over when the time is up.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import logging
import signal
import threading
import time
from types import FrameType
from typing import Any
from weakref import WeakSet

from meshlib.drain import Draining

__all__ = ["Drain", "install_all"]

log = logging.getLogger("meshlib.drain")


class Drain(Draining):
    """The draining state of one HTTP server process. `seconds` 0: the signal is handed on at once."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._previous: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._installed = False
        self._signalled = False
        _drains.add(self)

    def install(self) -> None:
        """Put ourselves before the server's SIGTERM handler; at lifespan startup, when the server has set its own.

        Idempotent, and does nothing once the signal has come. Only a handler set by `signal.signal` in the main thread
        can be chained to (uvicorn, gunicorn's workers); elsewhere the server's own shutdown is left alone, and `begin`
        can be called by hand.
        """
        if self._installed or self._signalled:
            return
        if threading.current_thread() is not threading.main_thread():
            log.info("requests are served by threads: only the main thread can install a drain (`install_all`)")
            return
        previous = signal.getsignal(signal.SIGTERM)
        if not callable(previous) or getattr(previous, "__module__", "") == "asyncio.unix_events":
            log.info("SIGTERM has no handler that can be chained to: the server shuts down in its own way")
            return
        self._loop = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self._previous = previous
        self._installed = True
        signal.signal(signal.SIGTERM, self._on_signal)

    def uninstall(self) -> None:
        """Give the signal back."""
        if self._installed:
            self._installed = False
            if signal.getsignal(signal.SIGTERM) == self._on_signal:
                signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal interrupts any line of the main thread, so hooks and logging are left to the event loop, or to a
        thread: a bare one, because the line may hold a lock of `threading`.
        """
        again, self._signalled = self._signalled, True
        left = self._over - time.monotonic() if self.draining else self.seconds
        wait = left > 0 and not again
        loop = self._loop
        if loop is None and wait:
            _thread.start_new_thread(self._wait, (left, number))
        elif loop is None:
            _thread.start_new_thread(self.begin, ())
        elif loop.is_closed():
            self.begin()
            wait = False
        else:
            loop.call_soon_threadsafe(self.begin)
            if wait:
                loop.call_soon_threadsafe(loop.call_later, left, self._hand_over, number)
        if not wait:
            self._previous(number, frame)

    def _hand_over(self, number: int) -> None:
        if self._installed:  # else the server has shut down meanwhile, of its own accord or by a second signal
            self._previous(number, None)

    def _wait(self, seconds: float, number: int) -> None:
        """The signal again when the time is over: its handler belongs into the main thread, and it wakes that."""
        self.begin()
        time.sleep(seconds)
        main = threading.main_thread().ident
        if self._installed and main is not None:
            signal.pthread_kill(main, number)


_drains: WeakSet[Drain] = WeakSet()


def install_all() -> None:
    """Install every drain of this process: for the hook of a server that serves in threads, in its main thread, once
    it has set its own signal handlers (gunicorn's `post_worker_init`).
    """
    for drain in list(_drains):
        drain.install()
