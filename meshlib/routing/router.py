"""Route tables: an authority to its virtual host, a request to the first route that matches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.request import RequestHead
from meshlib.model.route import RedirectAction, Route, RouteConfiguration, VirtualHost
from meshlib.routing.hosts import DomainIndex, without_port
from meshlib.routing.indexed import indexed
from meshlib.routing.located import at
from meshlib.routing.matcher_tree import MatcherTree, compile_matcher
from meshlib.routing.matchers import FractionTest, PathPredicate, Predicate, compile_conditions
from meshlib.routing.require_tls import TLS_ROUTE, Insecure, insecure
from meshlib.routing.rewrite import compile_redirect
from meshlib.routing.route_index import IndexedRoute, RouteIndex

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
    """A compiled RouteConfiguration. Compiling raises `ResourceError` for what cannot be honoured.

    `runtime` holds the values of runtime keys (`Snapshot.runtime`).
    """

    __slots__ = ("_domains", "_ignore_port", "_memory", "config", "virtual_hosts")

    def __init__(self, config: RouteConfiguration, runtime: Struct = EMPTY_STRUCT) -> None:
        self.config = config
        self.virtual_hosts = tuple(_compile_host(i, host, runtime) for i, host in enumerate(config.virtual_hosts))
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

    __slots__ = ("_candidates", "_routes", "config", "draws")

    def __init__(self, config: VirtualHost, runtime: Struct = EMPTY_STRUCT) -> None:
        self.config = config
        self._routes = tuple(_compile_route(i, route, runtime) for i, route in enumerate(config.routes))
        # Whether more than the head has a part in a match: chance, or what else the call carries.
        self.draws = any(route.draws for route in self._routes) or config.matcher is not None
        self._candidates = self._compile_candidates([_index(i, route) for i, route in enumerate(config.routes)])

    def _compile_candidates(self, routes: Sequence[IndexedRoute]) -> Callable[[RequestHead], Sequence[int]]:
        return RouteIndex(routes).candidates

    def match(self, head: RequestHead, rng: Rng) -> int:
        """The index of the first route that matches, -1 when none does.

        `rng` is drawn from at most once, and only when all else of a route with a `runtime_fraction` holds: as in Envoy
        every fraction of one request sees the same sample.
        """
        sample = -1.0
        routes = self._routes
        for index in self._candidates(head):
            route = routes[index]
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
        return self._trace(range(len(self._routes)), head, rng)

    def _trace(self, indexes: Iterable[int], head: RequestHead, rng: Rng) -> list[RouteTrial]:
        trials: list[RouteTrial] = []
        sample = -1.0
        for index in indexes:
            route, config = self._routes[index], self.config.routes[index]
            conditions = (PathPredicate(config.match.path), *route.conditions)
            failed = next((p.describe() for p in conditions if not p(head)), "")
            if not failed and route.fraction is not None:
                sample = rng.random() if sample < 0 else sample
                failed = "" if route.fraction(sample) else route.fraction.describe()
            trials.append(RouteTrial(index, config.name, not failed, failed))
            if not failed:
                break
        return trials


class _MatcherTable(VirtualHostTable):
    """Routes that a matcher chooses from: those of the action it ends at are tried in turn."""

    __slots__ = ("_tree",)

    _tree: MatcherTree[tuple[int, ...]]

    def _compile_candidates(self, routes: Sequence[IndexedRoute]) -> Callable[[RequestHead], Sequence[int]]:
        if self.config.matcher is None:
            return RouteIndex(routes).candidates
        with at("matcher"):
            self._tree = compile_matcher(self.config.matcher)
        find = self._tree.find
        of_action = {among: _in_order(routes, among) for among in self._tree.actions}

        def candidates(head: RequestHead) -> Sequence[int]:
            among = find(head)
            return () if among is None else of_action[among](head)

        return candidates

    def trace(self, head: RequestHead, rng: Rng) -> list[RouteTrial]:
        """The routes of the action, or why there is none."""
        among = self._tree.find(head)
        if among is None:
            return [RouteTrial(-1, "", False, "the virtual host's matcher")]
        return self._trace(among, head, rng)


def _in_order(routes: Sequence[IndexedRoute], among: tuple[int, ...]) -> Callable[[RequestHead], Sequence[int]]:
    """What gives the candidates of an action in the action's own order, which an index knows only as ascending."""
    if list(among) == sorted(among):
        return RouteIndex(routes, among).candidates
    places = RouteIndex([routes[index] for index in among]).candidates
    return lambda head: [among[place] for place in places(head)]


class _TlsTable(VirtualHostTable):
    """A virtual host that is only for https: other requests match no route but the one behind its last."""

    __slots__ = ("_inner", "_insecure")

    def __init__(self, inner: VirtualHostTable, test: Insecure) -> None:
        self.config = inner.config
        self.draws = inner.draws
        self._inner = inner
        self._insecure = test

    def match(self, head: RequestHead, rng: Rng) -> int:
        """As in any virtual host; the number of its routes where the request is to be redirected."""
        return len(self.config.routes) if self._insecure(head) else self._inner.match(head, rng)

    def trace(self, head: RequestHead, rng: Rng) -> list[RouteTrial]:
        """The routes tried, or the redirect."""
        if self._insecure(head):
            return [RouteTrial(len(self.config.routes), TLS_ROUTE.name, True)]
        return self._inner.trace(head, rng)


class _CompiledRoute:
    """A route's conditions but for its path: the index has decided that."""

    __slots__ = ("conditions", "draws", "fraction")

    def __init__(self, route: Route, runtime: Struct) -> None:
        with at("match"):
            self.conditions: tuple[Predicate, ...] = compile_conditions(route.match)
        percent = route.match.runtime_fraction
        self.fraction = FractionTest(percent.resolved(runtime)) if percent else None
        self.draws = bool(percent or route.match.dynamic_metadata or route.match.filter_state)


def _compile_host(index: int, host: VirtualHost, runtime: Struct) -> VirtualHostTable:
    with at(f"virtual_hosts[{index}]"):
        table = (VirtualHostTable if host.matcher is None else _MatcherTable)(host, runtime)
    test = insecure(host.require_tls)
    return table if test is None else _TlsTable(table, test)


def _index(index: int, route: Route) -> IndexedRoute:
    with at(f"routes[{index}].match"):
        return indexed(route.match)


def _compile_route(index: int, route: Route, runtime: Struct) -> _CompiledRoute:
    with at(f"routes[{index}]"):
        if isinstance(route.action, RedirectAction):
            # Checked here, so that a regex RE2 refuses never meets a request.
            with at("redirect"):
                compile_redirect(route.action, route.match)
        return _CompiledRoute(route, runtime)
