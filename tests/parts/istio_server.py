"""Istio's own xDS generator over a folder of Istio objects; see tests/servers/istio_generator."""

import re
from pathlib import Path

from parts.ports import free_port
from parts.process import Process, Server, ServerError
from parts.registry import path_of

VERDICT = re.compile(r"^(?:applied \d+ objects|rejected (?P<why>.*))\n", re.MULTILINE)
REFUSED_BY_US = re.compile(r"^.*ADS:\w+: ACK ERROR.*$", re.MULTILINE)


class IstioServer(Server):
    """A running generator over the Istio and Kubernetes ``objects`` (YAML) and what is written later.

    Each change of the Istio objects is pushed to every node; Kubernetes objects are read once. ``mesh_config`` is YAML
    of Istio's MeshConfig, for what differs from its defaults.
    """

    def __init__(self, work_folder: Path, objects: str = "", mesh_config: str = "") -> None:
        self.folder = work_folder / "objects"
        self.folder.mkdir()
        (self.folder / "objects.yaml").write_text(objects)
        self._log = work_folder / "istio_generator.log"
        self._args: list[str] = []
        if mesh_config:
            file = work_folder / "mesh_config.yaml"
            file.write_text(mesh_config)
            self._args = ["-mesh", str(file)]
        self.port = free_port()  # chosen here, so that a restart can come back at the same address
        super().__init__()

    @property
    def target(self) -> str:
        """``host:port``, as a bootstrap's server_uri takes it."""
        return self.address

    def write(self, text: str) -> None:
        """Replace the objects and wait until nodes are told of them.

        What Istio's own validation refuses is a ServerError with its reason; the old objects stay.
        """
        file, partial = self.folder / "objects.yaml", self.folder / ".partial"
        if (old := file.read_text()) == text:
            return
        before = len(self.log())
        partial.write_text(text)
        partial.rename(file)
        verdict = self._process.wait_for(lambda: VERDICT.search(self.log(), before), "verdict on the folder")
        if verdict["why"]:
            file.write_text(old)
            raise ServerError(verdict["why"])

    def nacks(self) -> list[str]:
        """What the generator says of responses that a client refused."""
        return REFUSED_BY_US.findall(self.log())

    def log(self) -> str:
        """Its own lines and istiod's."""
        return self._process.log()

    def _start(self) -> Process:
        argv = [path_of("istio_generator"), "-dir", str(self.folder), "-port", str(self.port), *self._args]
        process = Process(argv, self._log)
        process.wait_line(r"^port (\d+)$")
        return process
