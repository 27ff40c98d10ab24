"""The fixtures every test may use; tests/README.md shows each in a line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from parts import ports
from parts.backend import Backend
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply, Request
from parts.go_control_plane import GoControlPlane
from parts.istio_server import IstioServer
from parts.ratelimit_server import RateLimitServer
from parts.redis_server import RedisServer


class Stoppable(Protocol):
    def stop(self) -> object: ...


S = TypeVar("S", bound=Stoppable)


class Servers:
    """Starts servers in numbered folders of one temporary folder and stops them all, last started first."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        self._started = 0

    def folder(self, kind: str) -> Path:
        self._started += 1
        folder = self._root / f"{kind}-{self._started}"
        folder.mkdir()
        return folder

    def keep(self, server: S) -> S:
        self._stack.callback(server.stop)
        return server


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Where a test's servers live; use ``keep`` for one of your own that has a ``stop``."""
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("servers"), stack)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """``free_port()``: a loopback port, for servers that cannot take port 0."""
    return ports.free_port


@pytest.fixture
def backend(servers: Servers) -> Callable[..., Backend]:
    """``backend("stable")``: a uvicorn service in its own process."""

    def start(name: str = "backend") -> Backend:
        return servers.keep(Backend(name, servers.folder("backend") / f"{name}.log"))

    return start


@pytest.fixture
def fast_backend(servers: Servers) -> Callable[..., FastBackend]:
    """``fast_backend("stable", Reply(503))``: a service on a thread of this process, scripted by values."""

    def start(
        name: str = "backend",
        reply: Callable[[Request], Reply] | Reply | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> FastBackend:
        return servers.keep(FastBackend(name, reply or Reply(), host=host, port=port))

    return start


@pytest.fixture
def envoy(servers: Servers) -> Callable[..., EnvoyServer]:
    """``envoy(bootstrap)``: a real Envoy, LIVE when given back unless ``live=False``."""

    def start(bootstrap: Mapping[str, Any] | str, *, live: bool = True, args: Sequence[str] = ()) -> EnvoyServer:
        return servers.keep(EnvoyServer(bootstrap, servers.folder("envoy"), live=live, args=args))

    return start


@pytest.fixture
def go_control_plane(servers: Servers) -> Callable[..., GoControlPlane]:
    """``go_control_plane(folder)``: the reference ADS server over a folder of resources (by default a new one)."""

    def start(folder: Path | None = None, *, args: Sequence[str] = ()) -> GoControlPlane:
        logs = servers.folder("go-control-plane")
        if folder is None:
            folder = logs / "resources"
            folder.mkdir()
        return servers.keep(GoControlPlane(folder, logs, args))

    return start


@pytest.fixture
def istio_generator(servers: Servers) -> Callable[..., IstioServer]:
    """``istio_generator(yaml, mesh_config="")``: Istio's own xDS generator over these objects."""

    def start(objects: str = "", *, mesh_config: str = "") -> IstioServer:
        return servers.keep(IstioServer(servers.folder("istio-generator"), objects, mesh_config))

    return start


@pytest.fixture(scope="session")
def _session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_server(_session_redis: RedisServer) -> RedisServer:
    """An empty Redis, shared by the tests one after the other; do not stop it (``redis_factory`` gives one to stop)."""
    _session_redis.flush()
    return _session_redis


@pytest.fixture
def redis_factory(servers: Servers) -> Callable[[], RedisServer]:
    """``redis_factory()``: a Redis of the test's own, to kill, pause and restart."""

    def start() -> RedisServer:
        return servers.keep(RedisServer(servers.folder("redis")))

    return start


@pytest.fixture
def ratelimit_server(servers: Servers, redis_server: RedisServer) -> Callable[..., RateLimitServer]:
    """``ratelimit_server({"domain": [descriptors]})``: envoyproxy/ratelimit with these limits, on an empty Redis."""

    def start(limits: Mapping[str, Any], **environment: str) -> RateLimitServer:
        folder = servers.folder("ratelimit")
        return servers.keep(RateLimitServer(folder, redis_server.address, limits, environment))

    return start
