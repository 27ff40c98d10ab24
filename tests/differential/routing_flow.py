"""What meshlib's whole call flow does with a request, played by hand: what goes to the endpoint, what comes back."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from differential.routing_envoy import EXTENSIONS, REQUEST_NOISE, RESPONSE_NOISE
from differential.routing_observed import ROUTE_HEADER, Arrived, Ask, Observed, joined
from differential.routing_ours import ECHO_HEADERS, head_of
from meshlib.engine.commands import Commit, Fail, Reply, Start
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.listener import Listener
from meshlib.model.request import RawHeaders
from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.decode import decode_message
from parts.flow import Player, runtime_of

Json = dict[str, Any]
NOW = 1_000.0


def listener(config: Json, filters: tuple[Json, ...] = ()) -> Listener:
    """A listener with an inline route configuration and HTTP filters before the router, decoded."""
    from envoy.config.listener.v3 import listener_pb2
    from envoy.extensions.filters.http.cors.v3 import cors_pb2  # noqa: F401
    from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2  # noqa: F401
    from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2  # noqa: F401
    from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401

    router = {"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"}}
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "generated", **config},
        "http_filters": [*filters, router],
    }
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 80}}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    message = listener_pb2.Listener()
    json_format.ParseDict({"name": "in", "address": address, "filter_chains": [chain]}, message)
    found = decode_message(message).resource
    assert isinstance(found, Listener)
    return found


def runtime(config: Json, ports: Mapping[str, int], filters: tuple[Json, ...] = ()) -> Runtime:
    """A runtime with the listener and one cluster for each port in force."""
    clusters = {name: _cluster(name, port) for name, port in ports.items()}
    return runtime_of(Snapshot(listeners={"in": listener(config, filters)}, clusters=clusters))


def _cluster(name: str, port: int) -> Cluster:
    endpoint = LbEndpoint(Address("127.0.0.1", port), hostname=f"{name}.host")
    return Cluster(name, load_assignment=ClusterLoadAssignment(name, (LocalityLbEndpoints((endpoint,)),)))


def called(runtime: Runtime, ask: Ask) -> Observed:
    """One call; an endpoint answers as the backends behind the Envoy do."""
    player = Player(runtime, head_of(ask), NOW)
    match player.last:
        case Reply(status=status, headers=headers):
            return _observed(status, headers, None)
        case Fail(failure=failure):
            return Observed("", failure.status or 404)
        case Start(head=head, cluster=cluster):
            names = joined(texts(head.headers), REQUEST_NOISE)
            arrived = Arrived(cluster.name, head.path, head.authority, names)
            end = player.responds(200, NOW, *ECHO_HEADERS)
            assert isinstance(end, Commit)
            headers = end.headers if end.headers is not None else list(ECHO_HEADERS)
            player.close()
            return _observed(200, headers, arrived)
    raise AssertionError(player.last)


def _observed(status: int, headers: RawHeaders, arrived: Arrived | None) -> Observed:
    pairs = texts(headers)
    named = dict(pairs)
    return Observed(
        named.get(ROUTE_HEADER, ""), status, named.get("location", ""), joined(pairs, RESPONSE_NOISE), arrived
    )


def texts(headers: RawHeaders) -> list[tuple[str, str]]:
    """Headers as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
