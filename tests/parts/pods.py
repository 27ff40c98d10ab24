"""Pods: fast services in processes of their own, to be killed and frozen under load."""

from __future__ import annotations

import sys
from pathlib import Path

from parts.process import Process, Server
from parts.web import fetch

TESTS = Path(__file__).resolve().parents[1]


class Pod(Server):
    """One `parts.pod_app`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.port = 0
        super().__init__()

    @property
    def count(self) -> int:
        """Requests it has had since it started."""
        return int(fetch(f"http://{self.address}/__count"))

    def fail(self) -> None:
        """503 from now on."""
        fetch(f"http://{self.address}/__fail")

    def heal(self) -> None:
        """200 again."""
        fetch(f"http://{self.address}/__heal")

    def _start(self) -> Process:
        argv = [sys.executable, "-m", "parts.pod_app", str(self.port)]
        process = Process(argv, self._log, env={"PYTHONPATH": str(TESTS)})
        self.port = int(process.wait_line(r"^port (\d+)$")[1])
        return process
