"""The demo's processes with Consul as the control plane: an agent of our own, and services that find it by CONSUL_*."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
import time
from pathlib import Path

import httpx

from examples.demo.processes import START_SECONDS, Child, Fleet

HOST = "127.0.0.1"


def consul_binary() -> str | None:
    """The Consul that `make servers` built, else the one on PATH."""
    from tests.parts.go_servers import built

    return built("consul") or shutil.which("consul")


class ConsulFleet(Fleet):
    """As `Fleet`; the control plane is a Consul server that keeps its state on disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = _free_ports("http", "serf_lan", "serf_wan", "server")

    @property
    def address(self) -> str:
        """As `CONSUL_HTTP_ADDR` has it."""
        return f"{HOST}:{self._ports['http']}"

    def control_plane(self, conf: Path) -> Child:
        """`consul agent -server`; again with the state of the last one when there was one."""
        conf.mkdir(exist_ok=True)
        config = {
            "server": True,
            "bootstrap_expect": 1,
            "data_dir": str(conf / "data"),
            "bind_addr": HOST,
            "node_name": "demo",
            "ports": {**self._ports, "dns": -1, "grpc": -1, "grpc_tls": -1},
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "log_level": "warn",
        }
        (conf / "agent.json").write_text(json.dumps(config))
        binary = consul_binary()
        if binary is None:
            raise FileNotFoundError("consul")
        return self._start("consul", [binary, "agent", "-config-file", str(conf / "agent.json")])

    async def xds_port(self, control_plane: Child) -> int:
        """The HTTP port of an agent whose server leads."""
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(base_url=f"http://{self.address}", timeout=2.0) as client:
            while True:
                try:
                    if (await client.get("/v1/catalog/nodes")).json():
                        return self._ports["http"]
                except (httpx.HTTPError, ValueError):
                    pass
                if not control_plane.running or time.monotonic() > deadline:
                    raise RuntimeError(f"Consul does not serve; it printed:\n{control_plane.output()[-2000:]}")
                await asyncio.sleep(0.02)

    def instance(self, role: str, name: str, port: int = 0) -> Child:
        """One instance of a service (`services.py`), on a free port or a given one."""
        argv = [sys.executable, "-m", "examples.demo_consul.services", role, name, str(port)]
        return self._start(name, argv, {"CONSUL_HTTP_ADDR": self.address})


def _free_ports(*names: str) -> dict[str, int]:
    """A free port for each name; Consul cannot be told to take any."""
    probes = [socket.create_server((HOST, 0)) for _ in names]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return dict(zip(names, ports, strict=True))
