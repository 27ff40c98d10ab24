"""What is registered: a service instance, and how its health is known."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from meshlib.errors import ConfigurationError

Status = Literal["passing", "warning", "critical"]
_BEATS = 3  # in a time to live: two may be lost before Consul takes the instance for dead


@dataclass(frozen=True, slots=True)
class TtlCheck:
    """The instance tells of itself; critical when nothing was heard for `ttl` seconds.

    `deregister_after`: seconds of being critical after which Consul removes the instance (at least 60; None: never).
    """

    ttl: float = 15.0
    deregister_after: float | None = 600.0

    def __post_init__(self) -> None:
        if self.ttl < 1:
            raise ConfigurationError(f"a TTL of {self.ttl:g} s is too short to be kept; give 1 s or more")

    @property
    def interval(self) -> float:
        """Seconds between two beats."""
        return self.ttl / _BEATS


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Consul's agent asks `url` every `interval` seconds; critical unless it answers 2xx (429: warning) in `timeout`.

    `verify` seconds: how often to look whether the agent still knows the instance. `deregister_after` as in `TtlCheck`.
    """

    url: str
    interval: float = 5.0
    timeout: float = 2.0
    verify: float = 5.0
    deregister_after: float | None = 600.0


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """One instance. `service_id` is `service-host-port` unless given: the same after a restart, so that the instance
    replaces itself and leaves no ghost.

    `address` "" is the agent's own. `weights` are (passing, warning). `meta` and `tags` are what subsets are made of.
    `locality` is (region, zone), Consul 1.17 and later.
    """

    service: str
    port: int
    address: str = ""
    service_id: str = ""
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] | None = None
    weights: tuple[int, int] = (1, 1)
    locality: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.service or not 0 < self.port < 65536:
            raise ConfigurationError(f"service {self.service!r} at port {self.port} cannot be registered")
        if "/" in self.id or self.id in (".", ".."):
            raise ConfigurationError(
                f"service ID {self.id!r}: it stands in the paths of Consul's API; give one without /"
            )

    @property
    def id(self) -> str:
        """The ID by which the agent knows the instance."""
        return self.service_id or f"{self.service}-{self.address or socket.gethostname()}-{self.port}"

    @property
    def check_id(self) -> str:
        """The ID of its check, as Consul itself would name it."""
        return f"service:{self.id}"


def check_payload(definition: ServiceDefinition, check: TtlCheck | HttpCheck, status: Status) -> dict[str, Any]:
    """The check in Consul's words, beginning with `status`."""
    payload: dict[str, Any] = {"CheckID": definition.check_id, "Status": status}
    if isinstance(check, TtlCheck):
        payload["TTL"] = _duration(check.ttl)
    else:
        payload |= {"HTTP": check.url, "Interval": _duration(check.interval), "Timeout": _duration(check.timeout)}
    if check.deregister_after is not None:
        payload["DeregisterCriticalServiceAfter"] = _duration(max(60.0, check.deregister_after))
    return payload


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
