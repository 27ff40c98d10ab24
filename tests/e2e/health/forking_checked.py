"""A program with a mesh whose checks have found an endpoint ill; it forks. Ends with 0 if all is as it should be."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from e2e.health.checked import attempts, health, often
from meshlib import Mesh
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply


def child(mesh: Mesh, port: int) -> bool:
    """What the parent found is not the child's; it finds the same by itself."""
    before = health(mesh) == {port: "healthy"}
    mesh.start().wait_ready()
    after = health(mesh) == {port: "unhealthy"}
    mesh.close()
    return before and after


def main() -> int:
    sick = FastBackend("sick", Reply(503))
    mesh = Mesh.static({"up": static_cluster("up", [sick.address], health_checks=[often()])}).wait_ready()
    if health(mesh) != {sick.port: "unhealthy"}:
        return 2
    pid = os.fork()
    if pid == 0:
        found = 9
        try:
            found = 0 if child(mesh, sick.port) else 1
        finally:
            os._exit(found)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    before, until = attempts(mesh), time.monotonic() + 10.0
    while attempts(mesh) < before + 3:  # the parent goes on
        if time.monotonic() > until:
            return 3
        time.sleep(0.01)
    mesh.close()
    sick.stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
