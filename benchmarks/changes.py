"""From an edit to the first request that goes by it: files, and the embedded control plane by both protocols.

An edit puts a new version into the route's response headers; requests are made one after the other until one comes
back with it. The client's process is the measured one; a control plane is a process of its own.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.topology import SERVICE, TENANT, bootstrap, write
from benchmarks.worker import run
from meshlib import Mesh

FILES, SOTW, DELTA = "files", "control plane, SotW", "control plane, delta"
_PATIENCE = 5.0  # seconds after which a change counts as lost
_PAUSE = 0.002  # between two requests: a caller that leaves the other threads room


def edits(mesh: Mesh, path: Path, endpoint: tuple[str, int], count: int) -> list[float]:
    """Seconds from each edit to the first answer that shows it."""
    times = []
    with mesh.http.client(SERVICE, headers=dict([TENANT])) as client:
        client.get("/")
        for number in range(1, count + 1):
            version = f"v{number}"
            document = bootstrap([endpoint], version=version)
            begun = time.perf_counter()
            write(path, document)
            while client.get("/").headers.get("x-version") != version:
                if time.perf_counter() - begun > _PATIENCE:
                    raise TimeoutError(f"{version} did not come")
                time.sleep(_PAUSE)
            times.append(time.perf_counter() - begun)
    return times


@contextmanager
def control_plane(folder: Path) -> Iterator[str]:
    """The embedded control plane over a folder; its address."""
    command = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
    command += ["control-plane", "--dir", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if " on " not in line:
            raise RuntimeError(f"the control plane did not start: {line!r}")
        yield line.rpartition(" on ")[2].strip()
    finally:
        process.terminate()
        process.wait(10)


def by_files(path: Path, endpoint: tuple[str, int], count: int) -> list[float]:
    """The file source."""
    with Mesh.from_file(path) as mesh:
        return edits(mesh.wait_ready(), path, endpoint, count)


def by_xds(path: Path, endpoint: tuple[str, int], count: int, delta: bool) -> list[float]:
    """The xDS source on the embedded control plane."""
    from meshlib.sources.xds import Bootstrap, XdsServer

    with control_plane(path.parent) as address:
        source = Bootstrap((XdsServer(address),))
        with Mesh.from_xds(source, mode="sidecar", delta=delta, declared=(SERVICE,)) as mesh:
            return edits(mesh.wait_ready(), path, endpoint, count)


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    count = 20 if options["quick"] else 200
    host, port = options["url"].removeprefix("http://").split(":")
    endpoint = (host, int(port))
    ways: dict[str, Callable[[Path], list[float]]] = {
        FILES: lambda path: by_files(path, endpoint, count),
        SOTW: lambda path: by_xds(path, endpoint, count, False),
        DELTA: lambda path: by_xds(path, endpoint, count, True),
    }
    results = {}
    for name, way in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "mesh.json", bootstrap([endpoint]))
            ordered = sorted(way(path))
        results[name] = {"p50": ordered[len(ordered) // 2] * 1e3, "p99": ordered[int(len(ordered) * 0.99)] * 1e3}
    return results


if __name__ == "__main__":
    run(measure)
