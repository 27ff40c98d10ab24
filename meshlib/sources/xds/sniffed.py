"""Listeners of one service's own address, which istiod makes where a port's protocol is not said.

A sidecar chooses such a listener (`10.96.1.2_8080`) by the address a connection was made to, so its routes ask for no
host: their domain is `*`. A call has a host and no address yet. The route configuration is named after both
(`reviews.default.svc.cluster.local:8080`), so the names a call may use for the service are known from there.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from meshlib.model.listener import Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Snapshot

_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not listened on


class SniffedServices:
    """Gives the routes of a service's own listener the service's names as domains.

    `domain` is that of the node (`default.svc.cluster.local`), whose services go by their short names.
    """

    def __init__(self, domain: str = "") -> None:
        self._namespace, _, self._suffix = domain.partition(".")
        self._known: dict[str, tuple[RouteConfiguration, RouteConfiguration]] = {}  # so that a plan can be taken over

    @classmethod
    def of_node(cls, node_id: str) -> SniffedServices:
        """For a node called as Istio calls them: `sidecar~ip~pod.namespace~domain`."""
        parts = node_id.split("~")
        return cls(parts[3] if len(parts) == 4 else "")

    def by_host(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with those routes found by host."""
        own = {}
        for listener in snapshot.listeners.values():
            for name in _routes_of_one_address(listener):
                config = snapshot.routes.get(name)
                if config is not None and [host.domains for host in config.virtual_hosts] == [("*",)]:
                    own[name] = self._named(config, listener.address)
        self._known = {name: (snapshot.routes[name], named) for name, named in own.items()}
        return replace(snapshot, routes=MappingProxyType({**snapshot.routes, **own})) if own else snapshot

    def _named(self, config: RouteConfiguration, address: str) -> RouteConfiguration:
        known = self._known.get(config.name)
        if known is not None and known[0] is config:
            return known[1]
        host = config.name.rpartition(":")[0]
        names = tuple(dict.fromkeys((host, f"{host}.", *self._short(host), address)))
        (virtual_host,) = config.virtual_hosts
        return replace(config, virtual_hosts=(replace(virtual_host, domains=names),), ignore_port_in_host_matching=True)

    def _short(self, host: str) -> tuple[str, ...]:
        """`reviews`, `reviews.default`, `reviews.default.svc`: the first only from the service's own namespace."""
        head, svc, _ = host.partition(".svc.")
        if not svc or not self._suffix or not host.endswith(f".{self._suffix}"):
            return ()
        name, _, namespace = head.partition(".")
        return ((name,) if namespace == self._namespace else ()) + (head, f"{head}.svc")


def _routes_of_one_address(listener: Listener) -> list[str]:
    if listener.bound or listener.address in _WILDCARDS:
        return []
    names = [manager.routes for manager in listener.managers if isinstance(manager.routes, str)]
    return [name for name in names if name.endswith(f":{listener.port}")]
