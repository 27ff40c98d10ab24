"""A TCP relay before a server, that hands on what the server says a few bytes at a time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self


class Relay:
    """`with Relay(port, piece=24, pause=0.01) as relay:` clients connect to `relay.port` and reach `port`.

    Towards the server nothing is held back; towards the client `piece` bytes go every `pause` seconds. `pieces` counts
    them.
    """

    host = "127.0.0.1"

    def __init__(self, server: int, *, piece: int, pause: float) -> None:
        self._server = server
        self._piece = piece
        self._pause = pause
        self.pieces = 0
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="relay")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._open):
            _end(one)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self.host, self._server))
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, server]
                for source, target, slow in ((client, server, False), (server, client, True)):
                    thread = threading.Thread(target=self._copy, args=(source, target, slow), name="relay")
                    self._threads.append(thread)
                    thread.start()

    def _copy(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):  # either end was closed
            while data := source.recv(self._piece if slow else 65536):
                target.sendall(data)
                if slow:
                    self.pieces += 1
                    time.sleep(self._pause)
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
