"""The embedded control plane as its users run it: a process over a folder, on a port that stays its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.fast_backend import FastBackend
from parts.process import Process

ROOT = Path(__file__).parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]


def resources(backend: FastBackend, **route: Any) -> list[tuple[str, dict[str, Any]]]:
    """`payments` goes to one backend."""
    return [
        (LISTENER, xds.api_listener("payments")),
        (ROUTE_CONFIGURATION, xds.route_configuration("routes", xds.route(**route))),
        (CLUSTER, xds.eds_cluster()),
        (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("payments", xds.endpoint(backend.host, backend.port))),
    ]


def write(folder: Path, backend: FastBackend) -> None:
    """Serve this from now on."""
    new = folder / ".new"
    new.write_text(json.dumps([xds.any_json(*item) for item in resources(backend)]))
    new.replace(folder / "mesh.json")


class ControlPlaneProcess:
    """`meshlib control-plane --dir FOLDER --port PORT`."""

    def __init__(self, folder: Path, port: int) -> None:
        self._argv = [*MESHLIB, "control-plane", "--dir", str(folder), "--port", str(port)]
        self._log = folder.parent / "control-plane.log"
        self.target = f"127.0.0.1:{port}"
        self._process = self._start()

    def _start(self) -> Process:
        process = Process(self._argv, self._log, env={"PYTHONPATH": str(ROOT)})
        process.wait_line("serving ADS on")
        return process

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()

    def restart(self) -> None:
        """After `kill`, on the same port."""
        self._process = self._start()

    def stop(self) -> None:
        self._process.stop()
