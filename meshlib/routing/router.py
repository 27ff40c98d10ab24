"""Route tables: an authority to its virtual host, a request to the first route that matches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from meshlib.model.request import RequestHead
from meshlib.model.route import RedirectAction, Route, RouteConfiguration, VirtualHost
from meshlib.routing.hosts import DomainIndex, without_port
from meshlib.routing.located import at
from meshlib.routing.matchers import FractionTest, Predicate, compile_match
from meshlib.routing.paths import PathIndex, PathTest, compile_path, needs_test
from meshlib.routing.rewrite import compile_redirect

REMEMBERED_AUTHORITIES = 4096
"""How many authorities a table remembers the answer for; beyond that it forgets all and starts again."""


class Rng(Protocol):
    """What is needed of `random.Random`."""

    def random(self) -> float:
        """A float in [0, 1)."""


@dataclass(frozen=True, slots=True)
class RouteTrial:
    """One route tried for a request. `failed` is the first condition that did not hold, empty when it matched."""

    index: int
    name: str
    matched: bool
    failed: str = ""


class RouteTable:
    """A compiled RouteConfiguration. Compiling raises `ResourceError` for what cannot be honoured."""

    __slots__ = ("_domains", "_ignore_port", "_memory", "config", "virtual_hosts")

    def __init__(self, config: RouteConfiguration) -> None:
        self.config = config
        self.virtual_hosts = tuple(_compile_host(i, host) for i, host in enumerate(config.virtual_hosts))
        self._ignore_port = config.ignore_port_in_host_matching
        self._memory: dict[str, VirtualHostTable | None] = {}
        with at("virtual_hosts"):
            self._domains = DomainIndex(
                (domain, table) for table in self.virtual_hosts for domain in table.config.domains
            )

    def virtual_host(self, authority: str) -> VirtualHostTable | None:
        """The virtual host of an authority, None when no domain fits."""
        try:
            return self._memory[authority]
        except KeyError:
            found = self._domains.find(without_port(authority) if self._ignore_port else authority)
            if len(self._memory) >= REMEMBERED_AUTHORITIES:
                self._memory = {}
            self._memory[authority] = found
            return found


class VirtualHostTable:
    """The compiled routes of one virtual host."""

    __slots__ = ("_paths", "_routes", "config", "draws")

    def __init__(self, config: VirtualHost) -> None:
        self.config = config
        self._routes = tuple(_compile_route(i, route) for i, route in enumerate(config.routes))
        self.draws = any(route.fraction is not None for route in self._routes)  # whether chance has a part in a match
        self._paths = PathIndex([route.match.path for route in config.routes])

    def match(self, head: RequestHead, rng: Rng) -> int:
        """The index of the first route that matches, -1 when none does.

        `rng` is drawn from at most once, and only when all else of a route with a `runtime_fraction` holds: as in Envoy
        every fraction of one request sees the same sample.
        """
        path = head.path_only
        sample = -1.0
        routes = self._routes
        for index in self._paths.candidates(path):
            route = routes[index]
            if route.path_test is not None and not route.path_test(path):
                continue
            for predicate in route.conditions:
                if not predicate(head):
                    break
            else:
                if route.fraction is not None:
                    if sample < 0:
                        sample = rng.random()
                    if not route.fraction(sample):
                        continue
                return index
        return -1

    def trace(self, head: RequestHead, rng: Rng) -> list[RouteTrial]:
        """Every route tried, up to and with the one that matched, and why the others did not.

        The same predicates as `match`, without its index: given the same sample both end at the same route.
        """
        trials: list[RouteTrial] = []
        sample = -1.0
        for index, route in enumerate(self._routes):
            failed = next((p.describe() for p in (route.path, *route.conditions) if not p(head)), "")
            if not failed and route.fraction is not None:
                sample = rng.random() if sample < 0 else sample
                failed = "" if route.fraction(sample) else route.fraction.describe()
            trials.append(RouteTrial(index, self.config.routes[index].name, not failed, failed))
            if not failed:
                break
        return trials


class _CompiledRoute:
    """A route's conditions. `path_test` is None where the path index has already decided."""

    __slots__ = ("conditions", "fraction", "path", "path_test")

    def __init__(self, route: Route) -> None:
        with at("match"):
            self.path, *conditions = compile_match(route.match)
        self.conditions: tuple[Predicate, ...] = tuple(conditions)
        percent = route.match.runtime_fraction
        self.fraction = FractionTest(percent) if percent else None
        self.path_test: PathTest | None = compile_path(route.match.path) if needs_test(route.match.path) else None


def _compile_host(index: int, host: VirtualHost) -> VirtualHostTable:
    with at(f"virtual_hosts[{index}]"):
        return VirtualHostTable(host)


def _compile_route(index: int, route: Route) -> _CompiledRoute:
    with at(f"routes[{index}]"):
        if isinstance(route.action, RedirectAction):
            # Checked here, so that a regex RE2 refuses never meets a request.
            with at("redirect"):
                compile_redirect(route.action, route.match)
        return _CompiledRoute(route)
