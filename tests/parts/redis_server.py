"""A Redis of our own: memory only, on a free port, never the system's service."""

import socket
from pathlib import Path

from parts.ports import free_port
from parts.process import Process
from parts.registry import path_of


class RedisServer:
    """A running redis-server; ``url`` is what ``limits`` and ``redis`` take."""

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process = self._start()

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def flush(self) -> None:
        """Forget every key."""
        self.command("FLUSHALL")

    def command(self, line: str) -> str:
        """Send one inline command and give the first line of the answer (for control in tests, not for data)."""
        with socket.create_connection((self.host, self.port), timeout=5) as connection:
            connection.sendall(line.encode() + b"\r\n")
            with connection.makefile("rb") as answer:
                return answer.readline().decode().strip()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def kill(self) -> None:
        self._process.kill()

    def restart(self) -> None:
        """Start again, empty, on the same port."""
        self.stop()
        self._process = self._start()

    def stop(self) -> None:
        self._process.stop()

    def _start(self) -> Process:
        options = {"port": self.port, "bind": self.host, "save": "", "appendonly": "no", "dir": self._folder}
        argv = [path_of("redis"), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
        process = Process(argv, self._folder / "redis.log")
        process.wait_line("Ready to accept connections")
        return process
