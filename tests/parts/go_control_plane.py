"""The reference ADS server (go-control-plane) over a folder of xDS resources; see tests/servers/go_control_plane."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.ports import free_port
from parts.process import Process
from parts.registry import path_of


class GoControlPlane:
    """A running server over ``folder``; each change of the folder is a new snapshot for every node."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, log_folder: Path, args: Sequence[str] = ()) -> None:
        self.folder = folder
        self._log = log_folder / "go_control_plane.log"
        self._args = list(args)
        self.port = free_port()  # chosen here, so that a restart can come back at the same address
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def target(self) -> str:
        """``host:port``, as a gRPC channel or a bootstrap's server_uri takes it."""
        return f"{self.host}:{self.port}"

    def write(self, resources: Mapping[str, Any] | Sequence[Mapping[str, Any]], name: str = "resources.json") -> int:
        """Replace one file of the folder by these resources (each with "@type") and wait until they are served.

        Gives the snapshot's number. A folder the server refuses is a ServerError with what it said; the old
        snapshot stays.
        """
        before = self._versions()
        partial = self.folder / f".{name}.partial"
        partial.write_text(json.dumps(resources, indent=2))
        partial.rename(self.folder / name)
        return self._process.wait_for(lambda: self._newer(before), "new snapshot")

    def log(self) -> str:
        """One line an event: ``snapshot N ...``, ``request ...``, ``nack ...``, ``rejected ...``."""
        return self._process.log()

    def pause(self) -> None:
        """Freeze it: streams stay open and nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def restart(self) -> None:
        """Start again on the same port."""
        self.stop()
        self._process = self._start()

    def _newer(self, before: list[int]) -> int | None:
        versions = self._versions()
        return versions[-1] if len(versions) > len(before) else None

    def _versions(self) -> list[int]:
        return [int(line.split()[1]) for line in self.log().splitlines() if line.startswith("snapshot ")]

    def _start(self) -> Process:
        argv = [path_of("go_control_plane"), "-dir", str(self.folder), "-port", str(self.port), *self._args]
        process = Process(argv, self._log)
        process.wait_line(r"^port (\d+)$")
        return process
