"""A delta ADS server that answers by script: virtual hosts under aliases, or by saying that there are none (VHDS)."""

import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from meshlib.sources.xds.types import VIRTUAL_HOST

DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class VhdsServer:
    """`resources` by (type, name) are served to whoever names them, or to a wildcard but for virtual hosts.

    `hosts` are virtual hosts by the name they are asked for by: a message is sent under its own name with that one as
    an alias, None says in a resource without content that there is none; other names are said to be removed, those in
    `silent` are not answered. `asked` are the names of virtual hosts that were asked for, `""` for all.
    """

    def __init__(self, resources: dict[tuple[str, str], Any]) -> None:
        self.resources = resources
        self.hosts: dict[str, Any] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self._outboxes: list[queue.Queue[Any]] = []
        self._numbers = iter(range(1, 1_000_000))
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            discovery_pb2.DeltaDiscoveryRequest.FromString,
            discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        service, _, method = DELTA[1:].partition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def update(self, *resources: Any) -> None:
        """Serve and send resources of other types."""
        for item in resources:
            type_url = f"type.googleapis.com/{item.DESCRIPTOR.full_name}"
            name = item.cluster_name if hasattr(item, "cluster_name") else item.name
            self.resources[type_url, name] = item
            if not hasattr(item, "cluster_name"):  # endpoints are asked for
                for outbox in list(self._outboxes):
                    outbox.put(self._response(type_url, [_resource(name, item)], ()))

    def push(self, *hosts: Any, removed: Iterable[str] = ()) -> None:
        """Send virtual hosts that nobody asked for, or take some away, on every stream."""
        for outbox in list(self._outboxes):
            outbox.put(self._response(VIRTUAL_HOST, [_resource(host.name, host) for host in hosts], removed))

    def stop(self) -> None:
        for outbox in list(self._outboxes):
            outbox.put(None)
        self._server.stop(0).wait()

    def _serve(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        outbox: queue.Queue[Any] = queue.Queue()
        self._outboxes.append(outbox)

        def read() -> None:
            try:
                for request in requests:
                    answer = self._answer(request)
                    if answer is not None:
                        outbox.put(answer)
            except grpc.RpcError:
                pass  # the client is gone
            outbox.put(None)

        threading.Thread(target=read, daemon=True).start()
        yield from iter(outbox.get, None)
        self._outboxes.remove(outbox)

    def _answer(self, request: Any) -> Any:
        names = list(request.resource_names_subscribe)
        if not names and (request.response_nonce or request.resource_names_unsubscribe):
            return None
        if request.type_url == VIRTUAL_HOST:
            return self._hosts(names)
        found = {name: item for (type_url, name), item in self.resources.items() if type_url == request.type_url}
        wanted = found if not names or "*" in names else {name: found[name] for name in names if name in found}
        missing = [name for name in names if name not in found and name != "*"]
        return self._response(request.type_url, [_resource(name, item) for name, item in wanted.items()], missing)

    def _hosts(self, names: list[str]) -> Any:
        self.asked += names or [""]
        names = [name for name in names if name not in self.silent and name != "*"]
        known = [(name, self.hosts[name]) for name in names if name in self.hosts]
        sent = [_resource(name if host is None else host.name, host, name) for name, host in known]
        return self._response(VIRTUAL_HOST, sent, [name for name in names if name not in self.hosts])

    def _response(self, type_url: str, resources: list[Any], removed: Iterable[str]) -> Any:
        number = str(next(self._numbers))
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=type_url,
            nonce=number,
            system_version_info=number,
            resources=resources,
            removed_resources=list(removed),
        )


def _resource(name: str, message: Any, *aliases: str) -> Any:
    resource = discovery_pb2.Resource(name=name, aliases=aliases, version="1")
    if message is not None:
        resource.version = str(hash(message.SerializeToString(deterministic=True)))
        resource.resource.Pack(message)
    return resource
