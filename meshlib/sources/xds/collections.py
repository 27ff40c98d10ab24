"""Resources that are asked for as a whole: all scopes (SRDS), all virtual hosts of a route configuration (VHDS).

What points at one of them points at a collection, a key of its own, which points at every member there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meshlib.model.report import Issue
from meshlib.model.route import RouteConfiguration, VirtualHost
from meshlib.sources.xds.types import SCOPED_ROUTE_CONFIGURATION, VIRTUAL_HOST, WILDCARD

Key = tuple[str, str]
ALL_SCOPES: Key = (SCOPED_ROUTE_CONFIGURATION, WILDCARD)


def hosts_of(routes: str) -> Key:
    """The virtual hosts of a route configuration: those whose names begin with its name."""
    return (VIRTUAL_HOST, f"{routes}/{WILDCARD}")


def is_collection(key: Key) -> bool:
    """Whether a key stands for others."""
    return key == ALL_SCOPES or (key[0] == VIRTUAL_HOST and key[1].endswith(f"/{WILDCARD}"))


def members(collection: Key, keys: Iterable[Key]) -> tuple[Key, ...]:
    """The keys that a collection stands for."""
    type_url, prefix = collection[0], collection[1].removesuffix(WILDCARD)
    return tuple(
        sorted(key for key in keys if key[0] == type_url and key[1].startswith(prefix) and not is_collection(key))
    )


class HostsAdded:
    """Route configurations with the virtual hosts that came for them, each made once so that its plan is kept."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[RouteConfiguration, tuple[VirtualHost, ...], RouteConfiguration]] = {}
        self.issues: list[Issue] = []

    def to(self, routes: RouteConfiguration, came: tuple[VirtualHost, ...]) -> RouteConfiguration:
        """The configuration's own virtual hosts first. One with a domain that is taken is left out and reported."""
        made = self._made.get(routes.name)
        if made is None or made[0] is not routes or [id(host) for host in made[1]] != [id(host) for host in came]:
            made = self._made[routes.name] = (routes, came, self._with(routes, came))
        return made[2]

    def _with(self, routes: RouteConfiguration, came: tuple[VirtualHost, ...]) -> RouteConfiguration:
        taken = {domain.lower(): host.name for host in routes.virtual_hosts for domain in host.domains}
        added = []
        for host in came:
            twice = next((domain for domain in host.domains if domain.lower() in taken), None)
            if twice is not None:
                reason = f"{twice!r} is also in virtual host {taken[twice.lower()]!r}; it is left out"
                self.issues.append(Issue("error", f"VirtualHost {host.name}", "domains", reason))
                continue
            taken.update((domain.lower(), host.name) for domain in host.domains)
            added.append(host)
        return replace(routes, virtual_hosts=(*routes.virtual_hosts, *added)) if added else routes
