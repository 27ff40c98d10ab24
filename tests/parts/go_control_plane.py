"""The reference ADS server (go-control-plane) over a folder of xDS resources; see tests/servers/go_control_plane."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.ports import free_port
from parts.process import Process, Server, ServerError
from parts.registry import path_of

VERDICT = re.compile(r"^(?:snapshot (?P<number>\d+) .*|rejected (?P<why>.*))\n", re.MULTILINE)


class GoControlPlane(Server):
    """A running server over ``folder``; each change of the folder is a new snapshot for every node."""

    def __init__(self, folder: Path, log_folder: Path, args: Sequence[str] = ()) -> None:
        self.folder = folder
        self._log = log_folder / "go_control_plane.log"
        self._args = list(args)
        self.port = free_port()  # chosen here, so that a restart can come back at the same address
        super().__init__()

    @property
    def target(self) -> str:
        """``host:port``, as a gRPC channel or a bootstrap's server_uri takes it."""
        return self.address

    def write(self, resources: Mapping[str, Any] | Sequence[Mapping[str, Any]], name: str = "resources.json") -> int:
        """Replace one file of the folder by these resources (each with "@type") and wait until they are served.

        Gives the snapshot's number. A folder the server refuses is a ServerError with what it said; the old
        snapshot stays.
        """
        before = len(self.log())
        partial = self.folder / f".{name}.partial"
        partial.write_text(json.dumps(resources, indent=2))
        partial.rename(self.folder / name)
        verdict = self._process.wait_for(lambda: VERDICT.search(self.log(), before), "verdict on the folder")
        if verdict["why"]:
            raise ServerError(verdict["why"])
        return int(verdict["number"])

    def wait_line(self, pattern: str) -> re.Match[str]:
        """Wait for an event; see ``log``."""
        return self._process.wait_line(pattern)

    def log(self) -> str:
        """One line an event: ``snapshot N ...``, ``request ...``, ``nack ...``, ``rejected ...``."""
        return self._process.log()

    def _start(self) -> Process:
        argv = [path_of("go_control_plane"), "-dir", str(self.folder), "-port", str(self.port), *self._args]
        process = Process(argv, self._log)
        process.wait_line(r"^port (\d+)$")
        return process
