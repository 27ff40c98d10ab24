"""The backends of a scenario, by name: HTTP services and gRPC services that behave in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from parts.fast_backend import FastBackend, Reply, Request
from parts.grpc_backend import GrpcBackend
from parts.ports import free_port

NAMES = ("a", "b", "c")
SLOW = 0.3


class Fleet(Protocol):
    """Backends a, b and c, and one that is not there."""

    def port(self, name: str) -> int: ...

    def behave(self, name: str, how: str) -> None: ...

    def arrivals(self, name: str) -> int: ...


class HttpFleet:
    """Services in threads of this process."""

    def __init__(self, start: Callable[..., FastBackend]) -> None:
        self._backends = {name: start(name) for name in NAMES}

    def port(self, name: str) -> int:
        return self._backends[name].port if name in self._backends else free_port()

    def behave(self, name: str, how: str) -> None:
        backend = self._backends[name]
        replies: dict[str, Reply | Callable[[Request], Reply]] = {
            "good": Reply(),
            "bad": Reply(503),
            "bad once": lambda request: Reply(503 if len(backend.requests) == 1 else 200),
            "slow": Reply(delay=SLOW),
            "hang": Reply(fault="hang"),
        }
        backend.behave(replies[how])

    def arrivals(self, name: str) -> int:
        return self._backends[name].count


class GrpcFleet:
    """Services in processes shared by the session's tests."""

    def __init__(self, take: Callable[[int], list[GrpcBackend]]) -> None:
        self._backends = {backend.name: backend for backend in take(len(NAMES))}

    def port(self, name: str) -> int:
        return self._backends[name].port if name in self._backends else free_port()

    def behave(self, name: str, how: str) -> None:
        scripts: dict[str, dict[str, Any]] = {
            "good": {},
            "bad": {"statuses": [14]},
            "bad once": {"statuses": [14, 0]},
            "slow": {"delay": SLOW},
            "hang": {"hang": True},
        }
        self._backends[name].behave(**scripts[how])

    def arrivals(self, name: str) -> int:
        return self._backends[name].count
