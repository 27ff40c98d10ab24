"""From a config entry written to a real Consul to the first request that goes by it.

A service-splitter puts a new version into the response headers; requests are made one after the other until one comes
back with it. Consul's answer to the write is when it says that the entry holds: what watches are told, they are told
at about that moment. Edits keep apart by more than the source's own limit of ten questions a second.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.worker import run
from meshlib import Mesh
from meshlib.sources.consul import load_settings
from meshlib.sources.consul.agent_api import ConsulApi

FROM_THE_WRITE, FROM_ITS_ANSWER = "Consul, from the write", "Consul, from its answer to the write"
SERVICE = "payments"
VERSION = "x-version"
_PATIENCE = 5.0  # seconds after which a change counts as lost
_PAUSE = 0.002  # between two requests: a caller that leaves the other threads room
_APART = 0.12
_READY = 30.0


def binary() -> str | None:
    """The Consul that `make servers` built, else the one on PATH."""
    from tests.parts.go_servers import built

    return built("consul") or shutil.which("consul")


@contextmanager
def agent(path: str, folder: Path) -> Iterator[ConsulApi]:
    """A Consul server of our own, in memory."""
    names = ("http", "serf_lan", "serf_wan", "server")
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
    for probe in probes:
        probe.close()
    config = {"ports": {**ports, "dns": -1, "grpc": -1, "grpc_tls": -1}, "bind_addr": "127.0.0.1"}
    (folder / "agent.json").write_text(json.dumps(config))
    command = [path, "agent", "-dev", "-log-level=err", "-config-file", str(folder / "agent.json")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        api = ConsulApi(load_settings(f"127.0.0.1:{ports['http']}", environ={}))
        _until_ready(api)
        yield api
    finally:
        process.terminate()
        process.wait(10)


def _until_ready(api: ConsulApi) -> None:
    deadline = time.monotonic() + _READY
    while True:
        try:
            if api.catalog.nodes()[1]:
                return
        except Exception:  # it is still starting
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise TimeoutError("Consul has no node in its catalog")
        time.sleep(0.02)


def edits(api: ConsulApi, mesh: Mesh, count: int) -> tuple[list[float], list[float]]:
    """Seconds from each write, and from Consul's answer to it, to the first response that shows it."""
    from_write, from_answer = [], []
    with mesh.http.client(SERVICE) as client:
        for number in range(1, count + 1):
            time.sleep(_APART)
            begun = time.perf_counter()
            split(api, f"v{number}")
            answered = time.perf_counter()
            while client.get("/").headers.get(VERSION) != f"v{number}":
                if time.perf_counter() - begun > _PATIENCE:
                    raise TimeoutError(f"v{number} did not come")
                time.sleep(_PAUSE)
            seen = time.perf_counter()
            from_write.append(seen - begun)
            from_answer.append(seen - answered)
    return from_write, from_answer


def split(api: ConsulApi, version: str) -> None:
    """Write the splitter."""
    share = {"Weight": 100, "Service": SERVICE, "ResponseHeaders": {"Set": {VERSION: version}}}
    api.config.set("service-splitter", SERVICE, {"Splits": [share]})


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """By way: p50 and p99 in milliseconds; nothing where there is no Consul."""
    path = binary()
    if path is None:
        print("Consul is not built (make servers), nor on PATH: its changes are not measured", file=sys.stderr)
        return {}
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    host, port = options["url"].removeprefix("http://").split(":")
    with tempfile.TemporaryDirectory() as folder, agent(path, Path(folder)) as api:
        api.config.set("service-defaults", SERVICE, {"Protocol": "http"})
        api.agent.service.register(SERVICE, address=host, port=int(port))
        split(api, "v0")
        with Mesh.from_consul(str(api.address), declared=[SERVICE]) as mesh:
            measured = edits(api, mesh.wait_ready(), 20 if options["quick"] else 100)
    return {name: _quantiles(times) for name, times in zip((FROM_THE_WRITE, FROM_ITS_ANSWER), measured, strict=True)}


def _quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": ordered[len(ordered) // 2] * 1e3, "p99": ordered[int(len(ordered) * 0.99)] * 1e3}


if __name__ == "__main__":
    run(measure)
