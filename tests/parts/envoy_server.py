"""A real Envoy: one worker, admin on port 0, listeners found through the admin interface."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from parts.process import Process
from parts.registry import path_of
from parts.web import fetch

T = TypeVar("T")

ADMIN = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}


class EnvoyServer:
    """A running Envoy, started from a bootstrap (a dict, or YAML text)."""

    host = "127.0.0.1"

    def __init__(self, bootstrap: Mapping[str, Any] | str, folder: Path, *, live: bool, args: Sequence[str]) -> None:
        address_file = folder / "admin-address"
        self._process = Process(
            [
                path_of("envoy"),
                *("--config-path", str(_write_bootstrap(bootstrap, folder))),
                *("--admin-address-path", str(address_file)),
                *("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"),
                *args,
            ],
            folder / "envoy.log",
        )
        try:
            self.admin_port = self._process.wait_for(lambda: _port_in(address_file), "admin address")
            if live:
                self._process.wait_for(self._is_live, "LIVE state")
        except BaseException:
            self._process.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def admin_url(self) -> str:
        return f"http://{self.host}:{self.admin_port}"

    @property
    def port(self) -> int:
        """The port of the only listener; use ``listener_port`` where there are several."""
        listeners = self.listeners()
        if len(listeners) != 1:
            raise LookupError(f"one listener expected, Envoy has {sorted(listeners)}")
        return next(iter(listeners.values()))

    def listener_port(self, name: str, timeout: float = 10.0) -> int:
        """The port of the named listener, waited for (it may be coming by xDS)."""
        return self._process.wait_for(lambda: self.listeners().get(name), f"listener {name}", timeout)

    def listeners(self) -> dict[str, int]:
        """Port by listener name."""
        statuses = json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])
        return {
            status["name"]: status["local_address"]["socket_address"]["port_value"]
            for status in statuses
            if "socket_address" in status["local_address"]
        }

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose names match the regular expression."""
        lines = self.admin(f"/stats?filter={pattern}").splitlines()
        pairs = (line.rsplit(": ", 1) for line in lines if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdigit()}

    def config_dump(self) -> dict[str, Any]:
        """What ``/config_dump?include_eds`` answers."""
        dump: dict[str, Any] = json.loads(self.admin("/config_dump?include_eds"))
        return dump

    def clusters(self) -> dict[str, Any]:
        """What ``/clusters?format=json`` answers: hosts with health and ejection."""
        clusters: dict[str, Any] = json.loads(self.admin("/clusters?format=json"))
        return clusters

    def admin(self, path: str, method: str = "GET") -> str:
        """The body of an admin page; urllib's HTTPError unless 200."""
        return fetch(self.admin_url + path, method=method).decode()

    def wait_for(self, look: Callable[[], T | None], what: str, timeout: float = 10.0) -> T:
        """The first true value of look(), asked every 10 ms while Envoy runs: for what comes by xDS."""
        return self._process.wait_for(look, what, timeout)

    def log(self) -> str:
        return self._process.log()

    def stop(self) -> None:
        self._process.stop()

    def _is_live(self) -> bool:
        return json.loads(self.admin("/server_info"))["state"] == "LIVE"


def _write_bootstrap(bootstrap: Mapping[str, Any] | str, folder: Path) -> Path:
    if isinstance(bootstrap, str):
        import yaml

        bootstrap = yaml.safe_load(bootstrap)
    whole = {"admin": ADMIN, **deepcopy(dict(bootstrap))}
    path = folder / "envoy.json"
    path.write_text(json.dumps(whole, indent=2))
    return path


def _port_in(address_file: Path) -> int | None:
    if not address_file.exists():
        return None
    port = address_file.read_text().strip().rpartition(":")[2]
    return int(port) if port else None
