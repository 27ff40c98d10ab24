"""The demo's child processes: started with their output in a file, stopped by their own id, always all of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 60.0
STOP_SECONDS = 5.0
CERTIFICATES = "certificates"  # the workloads' own, a folder for each


class Child:
    """One running process. Its output goes to a file that can be read while it runs."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._began = log.stat().st_size if log.exists() else 0  # a restart appends to the file
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def output(self) -> str:
        """What this run has printed so far."""
        return self.log.read_bytes()[self._began :].decode(errors="replace")

    async def line(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Wait for output that matches. RuntimeError when the process ends or the time is over before."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.output(), re.MULTILINE)) is None:
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not print {pattern!r}; it printed:\n{self.output()[-2000:]}")
            await asyncio.sleep(0.01)
        return found

    def kill(self) -> None:
        """SIGKILL: no goodbye, as a crash or a lost machine."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.running:
            self._process.terminate()

    def ended_by(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then insist."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()


class Fleet:
    """Every child of the demo; leaving the `with` ends what still runs, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []
        self._xds_port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children:
            child.ended_by(deadline)

    def control_plane(self, conf: Path) -> Child:
        """`meshlib control-plane --dir conf`; again on the same port when it was started before."""
        command = str(Path(sysconfig.get_path("scripts"), "meshlib"))
        argv = [command, "control-plane", "--dir", str(conf), "--port", str(self._xds_port)]
        return self._start("control-plane", argv)

    async def xds_port(self, control_plane: Child) -> int:
        """The port of a control plane that serves; the services are told it."""
        self._xds_port = int((await control_plane.line(r"^serving ADS on .*:(\d+)$"))[1])
        return self._xds_port

    def instance(self, role: str, name: str, port: int = 0) -> Child:
        """One instance of a service (`services.py`), on a free port or a given one."""
        argv = [sys.executable, "-m", "examples.demo.services", role, name, str(port)]
        argv.append(str(self.folder / CERTIFICATES / name))
        bootstrap = {
            "xds_servers": [{"server_uri": f"127.0.0.1:{self._xds_port}", "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": name, "cluster": "demo"},
        }
        return self._start(name, argv, {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)})

    def _start(self, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> Child:
        child = Child(name, argv, self.folder / f"{name}.log", env)
        self._children.append(child)
        return child


async def listening_port(child: Child) -> int:
    """The port an instance has bound; from then on connections are accepted, if not yet answered."""
    return int((await child.line(r"listens on (\d+)$"))[1])
