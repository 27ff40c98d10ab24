"""A real uvicorn service in its own process, with a handle to make it misbehave, die and come back."""

import json
import sys
from pathlib import Path
from typing import Any

from parts.backend_app import CONTROL
from parts.process import Process, Server
from parts.web import fetch

TESTS = Path(__file__).resolve().parents[1]


class Backend(Server):
    """One instance of a service; its answers carry its name (``x-backend`` and the JSON echo)."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self.port = 0
        super().__init__()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def count(self) -> int:
        """Requests it has answered since it started."""
        return int(self._control("state")["count"])

    def behave(self, **standing: float) -> None:
        """Set what it does from now on (``status=503, delay=0.2, size=, chunks=, chunk_delay=``); nothing: be good."""
        self._control("behave", standing)

    def _start(self) -> Process:
        argv = [sys.executable, "-m", "parts.backend_app", "--name", self.name, "--port", str(self.port)]
        process = Process(argv, self._log, env={"PYTHONPATH": str(TESTS)})
        self.port = int(process.wait_line(r"^port (\d+)$")[1])
        return process

    def _control(self, action: str, content: dict[str, float] | None = None) -> dict[str, Any]:
        data = None if content is None else json.dumps(content).encode()
        state: dict[str, Any] = json.loads(fetch(f"{self.url}{CONTROL}{action}", data))
        return state
