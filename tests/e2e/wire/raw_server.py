"""A server that says exactly what a test scripts, over a real socket: for what a well-behaved server never does."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

Script = Callable[["Peer"], None]


class Peer:
    """One accepted connection, in a thread of its own; `number` counts from 0."""

    def __init__(self, server: RawServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        self._received = b""

    def head(self) -> bytes:
        """The next request head, blank line included; b"" when the client closed."""
        while b"\r\n\r\n" not in self._received:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.server.heads.append(head)
        return head + b"\r\n\r\n"

    def exactly(self, count: int) -> bytes:
        """That many bytes of body."""
        while len(self._received) < count:
            data = self.sock.recv(65536)
            assert data, "the client closed in the middle of its body"
            self._received += data
        body, self._received = self._received[:count], self._received[count:]
        return body

    def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        while end not in self._received:
            data = self.sock.recv(65536)
            assert data, "the client closed in the middle of its body"
            self._received += data
        body, _, self._received = self._received.partition(end)
        return body + end

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait(self) -> None:
        """Until the client closes or the server stops; what comes is thrown away."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


class RawServer:
    """Runs `script` for each connection; an error in it closes the connection, AssertionErrors are raised by `stop`."""

    def __init__(self, script: Script, *, context: ssl.SSLContext | None = None, path: str | None = None) -> None:
        self._script = script
        self._context = context
        self.heads: list[bytes] = []
        self.connections = 0
        self.failures: list[AssertionError] = []
        self.closed = threading.Semaphore(0)
        """Released once for each connection that ended."""
        self._peers: set[socket.socket] = set()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.port: int = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
            self.port = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def stop_listening(self) -> None:
        """Refuse further connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stop(self) -> None:
        self.stop_listening()
        for sock in list(self._peers):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        for failure in self.failures:
            raise failure

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        self._peers.add(sock)
        try:
            with contextlib.suppress(OSError):  # the client going away is part of the scenario
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                self._script(Peer(self, sock, number))
        except AssertionError as error:
            self.failures.append(error)
        finally:
            sock.close()
            self._peers.discard(sock)
            self.closed.release()
