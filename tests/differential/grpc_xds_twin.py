"""One control plane, followed by grpcio's own `xds:///` and by a mesh: the same calls through both.

Every world of a test has a listener of its own name on the one server, so that grpcio's process serves all tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from meshlib import Mesh
from meshlib.control.ads_server import AdsServer, ResourceStore
from meshlib.control.resource_store import Resource
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall, XdsCaller, aperform, perform
from parts.grpc_stubs import Stubs
from parts.xds import eventually

Json = dict[str, Any]
_numbers = itertools.count(1)


class Plane:
    """The control plane: worlds by name, each a list of (type, resource)."""

    def __init__(self) -> None:
        self._worlds: dict[str, list[Resource]] = {}
        self._store = ResourceStore()
        self.server = AdsServer(self._store)
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"

    def put(self, name: str, resources: Sequence[tuple[str, Json]]) -> None:
        self._worlds[name] = [Resource.of_message(xds_resources.message(kind, one)) for kind, one in resources]
        self._store.replace([resource for world in self._worlds.values() for resource in world])

    def stop(self) -> None:
        self.server.stop()


class World:
    """One listener (`name`), its routes and clusters; cluster `x` of a world is called `<name>-x`."""

    def __init__(self, plane: Plane, xds: XdsCaller, stubs: Stubs, **options: Any) -> None:
        self.name = f"world-{next(_numbers)}"
        self.target = f"xds:///{self.name}"
        self.stubs = stubs
        self._plane = plane
        self._xds = xds
        self._threads = ThreadPoolExecutor(64)
        self.mesh = Mesh.from_xds(plane.address, mode="proxyless", seed=3, fetch_timeout=1.0, **options)
        self._channel: Any = None

    def cluster(self, name: str) -> str:
        return f"{self.name}-{name}"

    def put(
        self,
        routes: Sequence[Json],
        clusters: dict[str, Json | Sequence[GrpcBackend]],
        *,
        manager: Json | None = None,
        without: Sequence[str] = (),
        others: Sequence[Json] = (),
        **configuration: Any,
    ) -> None:
        """Serve a configuration. A cluster is its backends, or `{"endpoints": load assignment, **fields of it}`;
        `others` are clusters as they are.
        """
        listener = xds_resources.api_listener(self.name, self.cluster("routes"), **(manager or {}))
        table = xds_resources.route_configuration(self.cluster("routes"), *routes, **configuration)
        resources = [(LISTENER, listener), (ROUTE_CONFIGURATION, table)]
        for name, given in clusters.items():
            fields = dict(given) if isinstance(given, dict) else {"endpoints": endpoints_of(given)}
            localities = fields.pop("endpoints")
            assignment = {"cluster_name": self.cluster(name), **localities}
            resources.append((CLUSTER, xds_resources.eds_cluster(self.cluster(name), **fields)))
            resources.append((CLUSTER_LOAD_ASSIGNMENT, assignment))
        resources += [(CLUSTER, other) for other in others]
        self._plane.put(self.name, [pair for pair in resources if pair[0] not in without])

    def theirs(self, *calls: GrpcCall, together: bool = False) -> list[Ended]:
        """The calls through grpcio's own client."""
        return self._xds.calls(self.target, calls, together=together)

    def ours(self, *calls: GrpcCall, together: bool = False) -> list[Ended]:
        """The calls through the mesh's blocking channel."""
        if self._channel is None:
            self._channel = self.mesh.grpc.channel(self.target)
        echo = self.stubs.echo(self._channel)
        run: Any = self._threads.map if together else map
        return list(run(lambda call: perform(self.stubs, echo, call), calls))

    async def ours_aio(self, *calls: GrpcCall) -> list[Ended]:
        """The calls through the mesh's asyncio channel, one after the other."""
        async with self.mesh.grpc.aio_channel(self.target) as channel:
            echo = self.stubs.echo(channel)
            return [await aperform(self.stubs, echo, call) for call in calls]

    def both(self, *calls: GrpcCall) -> list[tuple[Ended, Ended]]:
        """(theirs, ours) for each call, one after the other; keys get a prefix for the backends' counts."""
        theirs = self.theirs(*(keyed("xds", call) for call in calls))
        return list(zip(theirs, self.ours(*(keyed("mesh", call) for call in calls)), strict=True))

    def follow(self, ready: Callable[[Ended], bool] = lambda ended: ended.code == "OK", tries: int = 200) -> None:
        """Call through both until they follow what was put."""
        for ask in (self.theirs, self.ours):
            for _ in range(tries):
                if ready(ask(GrpcCall(key="follow"))[0]):
                    break
            else:
                raise AssertionError(f"{ask.__name__} does not follow {self.name}: {ask(GrpcCall(key='follow'))}")

    def refused(self) -> None:
        """Wait until both have refused something of this world's."""

        def refusals() -> set[str]:
            subscribers = self._plane.server.subscribers()
            return {
                one.user_agent.split()[0]
                for one in subscribers
                for kind in one.types
                if kind.nacks and self.cluster("routes") in kind.names
            }

        eventually(lambda: len(refusals()) == 2, f"two refusals of {self.name}")

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self.mesh.close()
        self._threads.shutdown()


def keyed(prefix: str, call: GrpcCall) -> GrpcCall:
    return replace(call, key=f"{prefix}-{call.key}")


def endpoints_of(backends: Sequence[GrpcBackend], **changes: Any) -> Json:
    """A load assignment's fields: one locality of these backends."""
    return {"endpoints": [locality(backends, **changes)]}


def locality(backends: Sequence[GrpcBackend], zone: str = "a", **changes: Any) -> Json:
    return {
        "locality": {"region": "test", "zone": zone},
        "load_balancing_weight": 1,
        "lb_endpoints": [xds_resources.endpoint(one.host, one.port) for one in backends],
        **changes,
    }


def route(cluster: str, *, prefix: str = "", match: Json | None = None, **action: Any) -> Json:
    """A route to a cluster by its full name."""
    return {"match": {"prefix": prefix, **(match or {})}, "route": {"cluster": cluster, **action}}


def attempts(backends: Sequence[GrpcBackend], key: str) -> int:
    """Arrivals of a key at all backends."""
    return sum(backend.state.arrivals.get(key, 0) for backend in backends)
