"""What a cluster's balancer takes from the request itself: a hash of its own, the endpoints that it asks for."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.balancing.base import Host
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.model.cluster import Cluster
from meshlib.model.lb import Maglev, OverrideHostSource, RingHash
from meshlib.model.metadata import Struct, Value
from meshlib.model.request import RequestHead
from meshlib.routing.hashing import RequestHasher, compile_hash


class ByRequest:
    """`hasher` takes the place of the route's, None where the route's counts. Raises `ResourceError` for a hash policy
    that cannot be compiled.
    """

    __slots__ = ("_sources", "hasher")

    def __init__(self, hasher: RequestHasher | None, sources: tuple[OverrideHostSource, ...]) -> None:
        self.hasher = hasher
        self._sources = sources

    def addresses(self, head: RequestHead, upstream: RequestHead) -> Iterator[str]:
        """What the request asks for, from all sources in their order; none of it has to be there. Headers are those
        that the endpoint sees (`upstream`), metadata is that of the caller's `head`.
        """
        for source in self._sources:
            said = _header(upstream, source.header) if source.header else _metadata(head, source)
            for address in said.split(","):
                if address.strip():
                    yield address.strip()

    def host(self, head: RequestHead, upstream: RequestHead, balancer: ClusterBalancer) -> Host | None:
        """The first endpoint that the request asks for and that is there, whatever its health."""
        return next((host for address in self.addresses(head, upstream) if (host := balancer.host_at(address))), None)


def by_request(config: Cluster) -> ByRequest | None:
    """What a cluster asks of requests, None for nothing."""
    policy = config.lb_policy
    hasher = compile_hash(policy.hash_policies) if isinstance(policy, RingHash | Maglev) else None
    sources = config.override_host.sources if config.override_host is not None else ()
    return ByRequest(hasher, sources) if hasher is not None or sources else None


def _header(head: RequestHead, name: str) -> str:
    values = head.get_all(name)
    return values[0] if values else ""  # of several headers Envoy takes the first


def _metadata(head: RequestHead, source: OverrideHostSource) -> str:
    found: Value = head.metadata.namespace(source.namespace)
    for key in source.path:
        found = found.get(key) if isinstance(found, Struct) else None
    return found if isinstance(found, str) else ""
