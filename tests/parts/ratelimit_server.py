"""envoyproxy/ratelimit on a Redis: the reference server of Envoy's rate limit service; see tests/servers/ratelimit.

Its windows begin on the clock's own minutes, hours and days. A test that counts asks for limits by the DAY.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parts.ports import free_port
from parts.process import Process, Server
from parts.registry import path_of
from parts.web import fetch


class RateLimitServer(Server):
    """A running server with these limits, by domain: what its configuration files hold under `descriptors`."""

    def __init__(
        self, folder: Path, redis: str, limits: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / "ratelimit.log"
        self._redis = redis
        self._environment = dict(environment or {})
        self._runtime = folder / "runtime"
        (self._runtime / "config").mkdir(parents=True)
        for domain, descriptors in limits.items():
            text = json.dumps({"domain": domain, "descriptors": descriptors})  # which is YAML
            (self._runtime / "config" / f"{domain}.yaml").write_text(text)
        self.port, self._http_port, self._debug_port = free_port(), free_port(), free_port()
        super().__init__()

    def log(self) -> str:
        """What it has said."""
        return self._process.log()

    def _start(self) -> Process:
        environment = {
            "RUNTIME_ROOT": str(self._runtime.parent),
            "RUNTIME_SUBDIRECTORY": self._runtime.name,
            "RUNTIME_WATCH_ROOT": "false",
            "REDIS_URL": self._redis,
            "REDIS_SOCKET_TYPE": "tcp",
            "USE_STATSD": "false",
            "DISABLE_STATS": "true",
            "LOG_LEVEL": "error",
            "HOST": self.host,
            "GRPC_HOST": self.host,
            "DEBUG_HOST": self.host,
            "PORT": str(self._http_port),
            "GRPC_PORT": str(self.port),
            "DEBUG_PORT": str(self._debug_port),
            **self._environment,
        }
        process = Process([path_of("ratelimit")], self._log, environment)
        process.wait_for(self._is_healthy, "healthy state")
        return process

    def _is_healthy(self) -> bool:
        try:
            return fetch(f"http://{self.host}:{self._http_port}/healthcheck", timeout=1.0) == b"OK"
        except OSError:
            return False
