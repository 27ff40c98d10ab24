"""One thread per process that carries bytes between pairs of sockets, one of each pair under TLS."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger("meshlib.grpc")
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_TICK_SECONDS = 0.5

Work = Callable[[], None]


class Handler(Protocol):
    """What a socket is registered with."""

    def ready(self, sock: Any) -> None:
        """The socket can be read or written. What this raises ends the handler, by `fail`."""

    def fail(self, error: Exception) -> None:
        """`ready` raised."""

    def tick(self, now: float) -> None:
        """Called now and then, for time limits (monotonic seconds)."""


class Pump:
    """An event loop for sockets, on a thread of its own that begins with the first work and never ends."""

    def __init__(self) -> None:
        self._start_anew()

    def _start_anew(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._work: deque[Work] = deque()
        self._woken = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._masks: dict[Any, int] = {}
        self._paused: list[tuple[Any, Handler, int]] = []

    def call_soon(self, work: Work) -> None:
        """Do something on the pump's thread. From any thread."""
        self._work.append(work)
        if self._thread is None and self._lock.acquire(blocking=False):
            # Nobody waits for the lock, for whoever has it wakes the thread; and the garbage collector, which closes
            # tunnels, may come here amid these very lines.
            try:
                self._begin()
            finally:
                self._lock.release()
        if self._thread is not None and not self._woken:
            self._woken = True
            self._near.send(b"\0")

    def _begin(self) -> None:
        if self._thread is None:
            self._near, self._far = socket.socketpair()
            self._near.setblocking(False)
            self._selector.register(self._far, _READ, None)
            self._thread = threading.Thread(target=self._run, name="meshlib-grpc-tls", daemon=True)
            self._thread.start()

    def want(self, sock: Any, handler: Handler, mask: int) -> None:
        """Call `handler.ready(sock)` when the socket can be read or written, as the mask says; 0 ends that."""
        known = self._masks.get(sock, 0)
        if mask == known:
            return
        if not known:
            self._selector.register(sock, mask, handler)
        elif mask:
            self._selector.modify(sock, mask, handler)
        else:
            self._selector.unregister(sock)
        if mask:
            self._masks[sock] = mask
        else:
            self._masks.pop(sock, None)

    def pause(self, sock: Any, handler: Handler) -> None:
        """Let a socket be until the next tick: what it asks for cannot be had now, and would be asked for at once."""
        if mask := self._masks.get(sock, 0):
            self.want(sock, handler, 0)
            self._paused.append((sock, handler, mask))

    def forget(self) -> None:
        """In a forked child: the thread is the parent's, and so are the sockets."""
        self._start_anew()

    def _run(self) -> None:
        last_tick = 0.0
        while True:
            for key, _ in self._selector.select(_TICK_SECONDS):
                if key.data is None:
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
                    self._woken = False
                elif key.fileobj in self._masks:  # not closed by one before it
                    guarded(key.data, key.fileobj)
            while self._work:
                _run_safely(self._work.popleft())
            now = time.monotonic()
            if now - last_tick >= _TICK_SECONDS:
                last_tick = now
                self._tick(now)

    def _tick(self, now: float) -> None:
        for handler in {id(key.data): key.data for key in list(self._selector.get_map().values())}.values():
            if handler is not None:
                _guarded_tick(handler, now)
        paused, self._paused = self._paused, []
        for sock, handler, mask in paused:
            if sock.fileno() >= 0:  # not closed meanwhile
                self.want(sock, handler, mask)


# The thread serves all connections: one that breaks takes no other along.


def guarded(handler: Handler, sock: Any) -> None:
    """`handler.ready(sock)`; what it raises ends the handler."""
    try:
        handler.ready(sock)
    except (OSError, ssl.SSLError) as error:
        _fail(handler, error)
    except Exception as error:
        log.exception("a connection failed")
        _fail(handler, error)


def _guarded_tick(handler: Handler, now: float) -> None:
    try:
        handler.tick(now)
    except Exception as error:
        log.exception("a connection failed")
        _fail(handler, error)


def _fail(handler: Handler, error: Exception) -> None:
    _run_safely(lambda: handler.fail(error))


def _run_safely(work: Work) -> None:
    try:
        work()
    except Exception:
        log.exception("%r failed", work)


PUMP = Pump()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PUMP.forget)
