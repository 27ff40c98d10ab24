"""A Redis of our own: memory only, on a free port, never the system's service."""

import socket
from pathlib import Path

from parts.ports import free_port
from parts.process import Process, Server
from parts.registry import path_of


class RedisServer(Server):
    """A running redis-server; ``url`` is what ``limits`` and ``redis`` take."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def flush(self) -> None:
        """Forget every key."""
        self.command("FLUSHALL")

    def command(self, line: str) -> str:
        """Send one inline command and give the first line of the answer (for control in tests, not for data)."""
        with socket.create_connection((self.host, self.port), timeout=5) as connection:
            connection.sendall(line.encode() + b"\r\n")
            with connection.makefile("rb") as answer:
                return answer.readline().decode().strip()

    def info(self, field: str) -> str:
        """One field of INFO."""
        with socket.create_connection((self.host, self.port), timeout=5) as connection:
            connection.sendall(b"INFO\r\nQUIT\r\n")
            with connection.makefile("r", encoding="utf-8") as answer:
                return next(line.partition(":")[2].strip() for line in answer if line.startswith(f"{field}:"))

    def _start(self) -> Process:
        options = {"port": self.port, "bind": self.host, "save": "", "appendonly": "no", "dir": self._folder}
        argv = [path_of("redis"), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
        process = Process(argv, self._folder / "redis.log")
        process.wait_line("Ready to accept connections")
        return process
