"""xDS resources built by hand, and a client with its events in a list, for the tests of the protocol."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from meshlib.control.resource_store import Resource
from meshlib.sources.xds.events import Event
from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    WireResource,
)

E = TypeVar("E")

__all__ = ["CLUSTER", "CLUSTER_LOAD_ASSIGNMENT", "LISTENER", "ROUTE_CONFIGURATION"]


def body(name: str, content: str = "") -> bytes:
    """The bytes of a resource: field 1 is the name, field 200 whatever tells two versions apart."""
    encoded, extra = name.encode(), content.encode()
    return b"\x0a" + bytes([len(encoded)]) + encoded + b"\xc2\x0c" + bytes([len(extra)]) + extra


def wire(type_url: str, name: str, content: str = "", *, wrapped: bool = False, version: str = "") -> WireResource:
    """A resource as the protocol hands it over; ``wrapped`` as in a Resource message."""
    return WireResource(type_url, body(name, content), name if wrapped else "", version)


def of_type(events: Iterable[Event], kind: type[E]) -> list[E]:
    """The events of one class."""
    return [event for event in events if isinstance(event, kind)]


class Events:
    """Collects events on the source thread; ``wait`` returns when one satisfies a predicate."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, events: Sequence[Event]) -> None:
        with self._changed:
            self.threads.add(threading.current_thread().name)
            self.all += events
            self._changed.notify_all()

    def wait(self, matches: Callable[[Event], bool], timeout: float = 10.0, *, count: int = 1) -> Event:
        """The ``count``-th matching event, of all there ever were."""
        found: list[Event] = []

        def has_come() -> bool:
            found[:] = [event for event in self.all if matches(event)]
            return len(found) >= count

        with self._changed:
            assert self._changed.wait_for(has_come, timeout), f"no such event among {self.all}"
        return found[count - 1]

    def wait_for(self, kind: type[E], timeout: float = 10.0, *, count: int = 1, **fields: object) -> E:
        """The ``count``-th event of a class whose fields have these values."""

        def matches(event: Event) -> bool:
            return isinstance(event, kind) and all(getattr(event, key) == value for key, value in fields.items())

        event = self.wait(matches, timeout, count=count)
        assert isinstance(event, kind)
        return event

    def forget(self) -> None:
        with self._changed:
            self.all.clear()


def eventually(holds: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Poll until true; for what only another process or thread can show."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)
    return value


def cluster(name: str, *, eds_service_name: str = "", connect_timeout: float = 1.0) -> Any:
    """An EDS cluster over ADS."""
    from envoy.config.cluster.v3 import cluster_pb2

    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS)
    message.connect_timeout.FromMilliseconds(int(connect_timeout * 1000))
    message.eds_cluster_config.eds_config.ads.SetInParent()
    message.eds_cluster_config.eds_config.resource_api_version = 2
    message.eds_cluster_config.service_name = eds_service_name
    return message


def endpoints(name: str, *addresses: tuple[str, int]) -> Any:
    """One locality of endpoints."""
    from envoy.config.endpoint.v3 import endpoint_pb2

    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    if addresses:
        locality = message.endpoints.add()
        locality.load_balancing_weight.value = 1
        locality.locality.region = "test"
        for host, port in addresses:
            socket_address = locality.lb_endpoints.add().endpoint.address.socket_address
            socket_address.address, socket_address.port_value = host, port
    return message


def routes(name: str, cluster_name: str, *domains: str) -> Any:
    """One virtual host that sends everything to one cluster."""
    from envoy.config.route.v3 import route_pb2

    message = route_pb2.RouteConfiguration(name=name)
    host = message.virtual_hosts.add(name="all", domains=domains or ("*",))
    route = host.routes.add()
    route.match.prefix = ""
    route.route.cluster = cluster_name
    return message


def connection_manager(route_name: str) -> Any:
    """An HTTP connection manager that takes its routes from ADS."""
    from envoy.extensions.filters.http.router.v3 import router_pb2
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

    manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix=route_name)
    manager.rds.route_config_name = route_name
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = 2
    manager.http_filters.add(name="router").typed_config.Pack(router_pb2.Router())
    return manager


def api_listener(name: str, route_name: str) -> Any:
    """What a proxyless client asks for by name."""
    from envoy.config.listener.v3 import listener_pb2

    message = listener_pb2.Listener(name=name)
    message.api_listener.api_listener.Pack(connection_manager(route_name))
    return message


def socket_listener(name: str, route_name: str, port: int = 0) -> Any:
    """What a proxy listens on."""
    from envoy.config.listener.v3 import listener_pb2

    message = listener_pb2.Listener(name=name)
    message.address.socket_address.address = "127.0.0.1"
    message.address.socket_address.port_value = port
    chain = message.filter_chains.add()
    chain.filters.add(name="http").typed_config.Pack(connection_manager(route_name))
    return message


def resources(*messages: Any) -> list[Resource]:
    """As the embedded control plane's store takes them."""
    return [Resource.of_message(message) for message in messages]


def as_json(*messages: Any) -> list[dict[str, Any]]:
    """As the reference control plane reads them from files."""
    from google.protobuf.json_format import MessageToDict

    return [
        {"@type": f"type.googleapis.com/{message.DESCRIPTOR.full_name}", **MessageToDict(message)}
        for message in messages
    ]
