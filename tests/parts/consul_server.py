"""A Consul agent of our own: every port free, HTTP or HTTPS, with or without state on disk; never the system's."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parts.ports import free_port
from parts.process import Process, Server
from parts.registry import path_of

Hcl = Mapping[str, Any]


class ConsulServer(Server):
    """A running `consul agent`, a leader of its own datacenter. `-dev` (state in memory) unless `persistent`.

    `config` is more of the agent's configuration. `https` adds an HTTPS listener and closes the HTTP one: paths of
    (CA, certificate, key); `.url` is then https.
    """

    def __init__(
        self,
        folder: Path,
        *,
        datacenter: str = "dc1",
        persistent: bool = False,
        https: tuple[Path, Path, Path] | None = None,
        config: Hcl | None = None,
        token: str = "",
    ) -> None:
        self.folder = folder
        self.datacenter = datacenter
        self.persistent = persistent
        self.token = token
        self._https = https
        self.port = free_port()
        self.serf_wan = free_port()
        (folder / "agent.json").write_text(json.dumps(self._config() | dict(config or {})))
        super().__init__()

    @property
    def url(self) -> str:
        return f"{'https' if self._https else 'http'}://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """As `CONSUL_HTTP_ADDR`."""
        return self.url if self._https else super().address

    def request(self, method: str, path: str, body: Any = None, timeout: float = 5.0) -> Any:
        """One request past everything that is tested; the JSON of the answer."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}{path}", data=data, method=method)  # noqa: S310  our own address
        if self.token:
            asked.add_header("X-Consul-Token", self.token)
        context = ssl._create_unverified_context() if self._https else None  # noqa: S323  control, not test
        with urllib.request.urlopen(asked, timeout=timeout, context=context) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def register(self, service: str, service_id: str, port: int, **more: Any) -> None:
        """Register an instance without a check; `Tags`, `Meta`, `Weights`, ... in Consul's words."""
        body = {"Name": service, "ID": service_id, "Address": self.host, "Port": port, **more}
        self.request("PUT", "/v1/agent/service/register?replace-existing-checks=true", body)

    def deregister(self, service_id: str) -> None:
        self.request("PUT", f"/v1/agent/service/deregister/{service_id}")

    def write(self, kind: str, name: str, **entry: Any) -> None:
        """Write a config entry."""
        self.request("PUT", "/v1/config", {"Kind": kind, "Name": name, **entry})

    def delete(self, kind: str, name: str) -> None:
        self.request("DELETE", f"/v1/config/{kind}/{name}")

    def health(self, service: str) -> dict[str, str]:
        """The worst status of each instance by its ID."""
        rank = ["passing", "warning", "critical"]
        rows = self.request("GET", f"/v1/health/service/{service}")
        return {
            row["Service"]["ID"]: max((check["Status"] for check in row["Checks"]), key=rank.index, default="passing")
            for row in rows
        }

    def restart(self) -> None:
        """Start again on the same ports: with its state if `persistent`, else empty."""
        super().restart()

    def log(self) -> str:
        return self._process.log()

    def _config(self) -> dict[str, Any]:
        http = {"http": -1, "https": self.port} if self._https else {"http": self.port, "https": -1}
        rest = {"dns": -1, "grpc": -1, "grpc_tls": -1}
        ports = {**http, **rest, "serf_lan": free_port(), "serf_wan": self.serf_wan, "server": free_port()}
        config: dict[str, Any] = {
            "datacenter": self.datacenter,
            "node_name": f"node-{self.datacenter}",
            "bind_addr": self.host,
            "client_addr": self.host,
            "ports": ports,
            "log_level": "warn",
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 1000},
        }
        if self._https:
            ca, certificate, key = map(str, self._https)
            config["tls"] = {"https": {"ca_file": ca, "cert_file": certificate, "key_file": key}}
        return config

    def _start(self) -> Process:
        argv = [path_of("consul"), "agent", "-config-file", str(self.folder / "agent.json")]
        if self.persistent:
            argv += ["-server", "-bootstrap-expect=1", "-data-dir", str(self.folder / "data")]
        else:
            argv += ["-dev"]
        process = Process(argv, self.folder / "consul.log")
        process.wait_for(self._has_leader, "leader")
        return process

    def _has_leader(self) -> bool:
        try:
            # The node itself is in the catalog: services can be registered and found from now on.
            return bool(self.request("GET", "/v1/status/leader", timeout=1.0)) and bool(
                self.request("GET", "/v1/catalog/nodes", timeout=1.0)
            )
        except (OSError, ValueError):
            return False
