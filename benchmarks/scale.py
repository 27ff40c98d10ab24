"""Size: putting 10 000 endpoints into force, and the memory a mesh takes."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.topology import bootstrap, write
from benchmarks.worker import run

ENDPOINTS = 10_000


def resident() -> float:
    """Megabytes of this process; 0 where psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return 0.0
    return float(psutil.Process().memory_info().rss) / 1e6


def addresses(count: int) -> list[tuple[str, int]]:
    return [(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(count)]


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    memory = {"interpreter": resident()}
    import httpx

    httpx.Client()
    memory["with httpx"] = resident()
    from meshlib import Mesh

    logging.getLogger("meshlib").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.json"
        with Mesh.from_file(write(path, bootstrap(addresses(1)))) as small:
            small.wait_ready()
            memory["with a mesh of one endpoint"] = resident()
        write(path, bootstrap(addresses(ENDPOINTS // 2)))  # two clusters of the same addresses
        begun = time.perf_counter()
        with Mesh.from_file(path) as large:
            large.wait_ready()
            loaded = time.perf_counter() - begun
            memory["with one of 10 000 endpoints"] = resident()
            begun = time.perf_counter()
            large.publish(large.plan.snapshot)
            again = time.perf_counter() - begun
    static = {"payments": [f"{host}:{port}" for host, port in addresses(ENDPOINTS)]}
    begun = time.perf_counter()
    with Mesh.static(static):
        applied = time.perf_counter() - begun
    return {
        "load_file_ms": loaded * 1e3,
        "apply_ms": applied * 1e3,
        "apply_unchanged_ms": again * 1e3,
        "memory_mb": memory,
    }


if __name__ == "__main__":
    run(measure)
