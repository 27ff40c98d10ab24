"""Whether traffic is shared as a configuration says: many requests drawn by the code that calls run through, or counts
that were observed, against the shares that are written down.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from meshlib.engine.decision import drawn
from meshlib.engine.plan import Plan
from meshlib.engine.route import RoutePlan
from meshlib.explain.chi_squared import Fit, fit
from meshlib.explain.lane_requests import half_matching, why_not_drawn
from meshlib.model.lanes import Lane, LaneGroup
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.request import RequestHead
from meshlib.model.route import HashPolicy, RouteAction, WeightedClusters
from meshlib.routing.lanes import LaneRules

NO_LANE = "(baseline)"
_ANY = RouteMatch(PathMatcher("prefix", "/"))
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Split:
    """One place where traffic is shared: a weighted route, `virtual host/route`, or a lane, `lane group/lane`. `shares`
    are the weights, or how many of the requests match a lane that takes all such; `counts` what came of them.
    `not_drawn` says why nothing was drawn.
    """

    name: str
    shares: Mapping[str, float]
    counts: Mapping[str, int]
    not_drawn: str = ""

    @property
    def fit(self) -> Fit:
        """How well the counts fit the shares."""
        return fit(self.counts, self.shares)

    @property
    def untested(self) -> str:
        """Why there is nothing to test: nothing was drawn or observed, or everything goes to one and the same."""
        if self.not_drawn:
            return f"not drawn: {self.not_drawn}"
        found = self.fit
        return "nothing to test" if found.degrees == 0 and found.p_value == 1.0 else ""


def drawn_splits(plan: Plan, requests: int, seed: int) -> Iterator[Split]:
    """Every split of a plan with so many requests. Those that are shared by the hash of a header, a cookie, a parameter
    or an address are drawn with as many values of it: as many users.
    """
    rng = random.Random(seed)  # noqa: S311  it balances, it keeps no secret
    for route, action in _weighted(plan):
        shares: Counter[str] = Counter()
        for cluster in action.clusters:
            shares[cluster.name] += cluster.weight
        heads = _heads(_policies(route), requests, action.header_name)
        yield Split(route.label, dict(shares), _counted(route, heads, rng))
    for group, lane in _lanes(plan):
        drawn_lane = _entered if lane.share < 100.0 else _matched
        yield drawn_lane(group, lane, requests, rng)


def observed_splits(plan: Plan, observed: Mapping[str, Mapping[str, int]]) -> Iterator[Split]:
    """The splits of a plan that something was observed of, by their names. KeyError names one that is not there, or a
    lane that takes all that match: how many of the requests do, no configuration says.
    """
    known = {split.name: split for split in drawn_splits(plan, 0, 0) if any(split.shares.values())}
    for name, counts in observed.items():
        yield Split(name, known[name].shares, counts)


def _weighted(plan: Plan) -> Iterator[tuple[RoutePlan, WeightedClusters]]:
    """The weighted routes; one that stands in several listeners, once."""
    outbound, seen = plan.outbound, set()
    for tables in (*outbound.named.values(), *outbound.by_port.values(), outbound.rest):
        for route in (route for table in tables for route in table.route_plans()):
            action = route.action
            if isinstance(action, RouteAction) and isinstance(action.cluster, WeightedClusters):
                known = (route.label, action)
                if known not in seen:
                    seen.add(known)
                    yield route, action.cluster


def _counted(route: RoutePlan, heads: Iterable[RequestHead], rng: random.Random) -> dict[str, int]:
    counts: Counter[str] = Counter()
    choose = route.choose
    if choose is not None:
        for head in heads:
            counts[route.shares[drawn(route, choose, head, rng)].cluster] += 1
    return dict(counts)


def _policies(route: RoutePlan) -> tuple[HashPolicy, ...]:
    action = route.action
    return action.hash_policies if isinstance(action, RouteAction) and route.key is not None else ()


def _lanes(plan: Plan) -> Iterator[tuple[LaneGroup, Lane]]:
    groups = {cluster.lanes.name: cluster.lanes for cluster in plan.snapshot.clusters.values() if cluster.lanes}
    for group in groups.values():
        for lane in group.lanes:
            if lane.matches:
                yield group, lane


def _entered(group: LaneGroup, lane: Lane, requests: int, rng: random.Random) -> Split:
    """The lane after its warm-up, by requests that all match it."""
    everybody = Lane(lane.name, (_ANY,), lane.share, lane.by)
    rules = LaneRules([LaneGroup(group.name, group.label, group.strict, (everybody,))])
    counts: Counter[str] = Counter()
    for number, head in enumerate(_heads(lane.by, requests)):
        said = rules.choose(head, _address(number), _DAY, rng)
        counts[lane.name if said.partition("/")[2] else NO_LANE] += 1
    return Split(f"lane {group.name}/{lane.name}", {lane.name: lane.share, NO_LANE: 100.0 - lane.share}, dict(counts))


def _matched(group: LaneGroup, lane: Lane, requests: int, rng: random.Random) -> Split:
    """The lane after its warm-up, by requests of which half match it. One that goes where it should not is counted
    under a name that has no share: a single one is a deviation.
    """
    name = f"lane {group.name}/{lane.name}"
    if why := why_not_drawn(lane):
        return Split(name, {}, {}, why)
    rules = LaneRules([LaneGroup(group.name, group.label, group.strict, (Lane(lane.name, lane.matches),))])
    shares, counts = Counter({lane.name: 0, NO_LANE: 0}), Counter[str]()
    for number, (head, matches) in enumerate(half_matching(lane, requests)):
        entered = bool(rules.choose(head, _address(number), _DAY, rng).partition("/")[2])
        wanted, got = (lane.name if each else NO_LANE for each in (matches, entered))
        shares[wanted] += 1
        counts[got if entered == matches else f"{got} instead of {wanted}"] += 1
    return Split(name, dict(shares), dict(counts))


def _heads(policies: tuple[HashPolicy, ...], requests: int, numbered: str = "") -> Iterator[RequestHead]:
    """As many requests, different in what the policies look at, and in the number in the header `numbered`."""
    for number in range(requests):
        headers = [(numbered.encode("latin-1"), b"%d" % number)] if numbered else []
        query = ""
        for policy in policies:
            value = f"user-{number}"
            if policy.kind == "header":
                headers.append((policy.name.encode("latin-1"), value.encode()))
            elif policy.kind == "cookie":
                headers.append((b"cookie", f"{policy.name}={value}".encode("latin-1")))
            elif policy.kind == "query_parameter":
                query = f"?{policy.name}={value}"
        yield RequestHead("GET", "http", "traffic", f"/{query}", headers)


def _address(number: int) -> str:
    """An address of its own for each of 16 million."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
