"""Lanes: how they travel, who enters, which endpoints a request is given."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from meshlib.engine.lanes import by_labels, entered, handed_on
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshlib.model.lanes import Lane, LaneGroup, LaneRamp, Nearby, with_lane
from meshlib.model.lb import LbSubsetConfig, SubsetSelector
from meshlib.model.matchers import HeaderMatcher, PathMatcher, RouteMatch, StringMatcher
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.request import RequestHead
from meshlib.model.route import HashPolicy
from meshlib.routing.lanes import LaneRules, lane_of

ALL = RouteMatch(PathMatcher("prefix", "/"))
TESTERS = RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher("x-tag", StringMatcher("exact", "beta")),))
NOWHERE = Locality()


def head(baggage: str | None = None, **headers: str) -> RequestHead:
    given = {**headers, **({} if baggage is None else {"baggage": baggage})}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
    return RequestHead("GET", "http", "payments", "/charge", raw)


def rules(*lanes: Lane, group: str = "shop") -> LaneRules:
    return LaneRules([LaneGroup(group, lanes=lanes)])


@pytest.mark.parametrize(
    "baggage, lane",
    [
        (None, ""),
        ("", ""),
        ("user=7", ""),
        ("mesh-lane=shop/gray", "shop/gray"),
        ("user=7, mesh-lane = shop/gray;p=1 ,x=y", "shop/gray"),
        ("mesh-lane=shop%2Fgray", "shop/gray"),
        ("xmesh-lane=shop/gray", ""),
        ("mesh-lane", ""),
        ("mesh-lane=,a=b", ""),
    ],
)
def test_the_lane_is_a_member_of_the_baggage(baggage: str | None, lane: str) -> None:
    assert lane_of(head(baggage)) == lane


def test_writing_a_lane_keeps_the_rest_of_the_baggage() -> None:
    assert with_lane("", "shop/gray") == "mesh-lane=shop/gray"
    assert with_lane("a=1;p, mesh-lane=old/x,b=2", "shop/gray") == "mesh-lane=shop/gray,a=1;p,b=2"
    said = with_lane("a=1", "a,b;c/x y")
    assert lane_of(head(said)) == "a,b;c/x y"
    headers = handed_on([(b"Baggage", b"a=1"), (b"x", b"y"), (b"baggage", b"b=2")], "shop/gray")
    assert headers == [(b"x", b"y"), (b"baggage", b"mesh-lane=shop/gray,a=1,b=2")]


def test_who_matches_enters_and_everybody_else_is_on_none() -> None:
    chosen = rules(Lane("gray", (TESTERS,)))
    rng = random.Random(1)
    assert chosen.choose(head(x_tag="beta"), "", 0.0, rng) == "shop/gray"
    assert chosen.choose(head(x_tag="alpha"), "", 0.0, rng) == "shop/"


def test_what_was_decided_before_is_not_decided_again() -> None:
    chosen = rules(Lane("gray", (ALL,)))
    rng = random.Random(1)
    assert chosen.choose(head("mesh-lane=shop/"), "", 0.0, rng) == "shop/"
    assert chosen.choose(head("mesh-lane=shop/blue"), "", 0.0, rng) == "shop/blue"
    assert chosen.choose(head("mesh-lane=other/x"), "", 0.0, rng) == "other/x"  # one lane at a time
    assert chosen.choose(head("mesh-lane=other/"), "", 0.0, rng) == "shop/gray"  # of this group nobody has decided
    nobody = rules(Lane("gray", (TESTERS,)))
    assert nobody.choose(head("mesh-lane=other/"), "", 0.0, rng) == "other+shop/"
    assert nobody.choose(head("mesh-lane=other+shop/", x_tag="beta"), "", 0.0, rng) == "other+shop/"


def test_a_group_without_entries_decides_nothing() -> None:
    closed = rules(Lane("gray"))
    assert closed.choose(head(), "", 0.0, random.Random(1)) == ""
    assert entered(untouched := head(), closed, "", 0.0, random.Random(1)) is untouched


def test_a_share_is_kept_by_chance() -> None:
    chosen, rng = rules(Lane("gray", (ALL,), share=25.0)), random.Random(7)
    counts = Counter(chosen.choose(head(), "", 0.0, rng) for _ in range(20_000))
    assert abs(counts["shop/gray"] / 20_000 - 0.25) < 0.015


@pytest.mark.parametrize(
    "by, request_of",
    [
        (HashPolicy("header", "x-user"), lambda n: (head(x_user=f"user-{n}"), "")),
        (HashPolicy("cookie", "session"), lambda n: (head(cookie=f"session=s{n}"), "")),
        (HashPolicy("source_ip"), lambda n: (head(), f"10.0.{n // 250}.{n % 250}")),
    ],
)
def test_a_share_by_a_key_is_the_same_for_the_same_key(by: HashPolicy, request_of: Any) -> None:
    chosen, rng = rules(Lane("gray", (ALL,), share=30.0, by=(by,))), random.Random(7)
    first = [chosen.choose(*request_of(n), 0.0, rng) for n in range(3000)]
    assert first == [chosen.choose(*request_of(n), 0.0, rng) for n in range(3000)]
    assert abs(first.count("shop/gray") / 3000 - 0.30) < 0.04
    assert chosen.choose(head(), "", 0.0, rng) == "shop/"  # nothing tells who it is


def test_a_larger_share_by_a_key_takes_nobody_off_the_lane() -> None:
    def on(share: float) -> set[int]:
        lane = Lane("gray", (ALL,), share=share, by=(HashPolicy("header", "x-user"),))
        chosen = rules(lane)
        return {n for n in range(500) if chosen.choose(head(x_user=str(n)), "", 0.0, random.Random(1)) == "shop/gray"}

    assert on(5.0) < on(20.0) < on(60.0) < on(100.0)


@pytest.mark.parametrize(
    "curvature, at, factor",
    [(1.0, 0, 0.0), (1.0, -5, 0.0), (1.0, 50, 0.5), (1.0, 100, 1.0), (1.0, 1e9, 1.0), (2.0, 50, 0.25), (0.5, 25, 0.5)],
)
def test_a_ramp_grows_to_the_whole_share(curvature: float, at: float, factor: float) -> None:
    assert LaneRamp(1000.0, 100.0, curvature).factor(1000.0 + at) == pytest.approx(factor)


def test_a_share_is_as_far_as_its_ramp() -> None:
    chosen = rules(Lane("gray", (ALL,), 50.0, ramp=LaneRamp(1000.0, 100.0, 2.0)))
    for at, share in ((999.0, 0.0), (1050.0, 0.125), (1200.0, 0.5)):
        rng = random.Random(3)
        taken = sum(chosen.choose(head(), "", at, rng) == "shop/gray" for _ in range(10_000))
        assert abs(taken / 10_000 - share) < 0.02


# ---------------------------------------------------------------- the endpoints of a lane


def endpoint(port: int, labels: Mapping[str, Any] | None = None, **more: Any) -> LbEndpoint:
    return LbEndpoint(Address("10.0.0.1", port), metadata=Metadata.of({"envoy.lb": labels or {}}), **more)


def assignment(*endpoints: LbEndpoint) -> ClusterLoadAssignment:
    return ClusterLoadAssignment("payments", (LocalityLbEndpoints(endpoints),))


BASE, GRAY = endpoint(1), endpoint(2, {"lane": "gray"})


@pytest.mark.parametrize(
    "strict, baggage, lane",
    [
        (False, None, ""),
        (False, "mesh-lane=shop/gray", "gray"),
        (False, "mesh-lane=shop/blue", ""),
        (True, "mesh-lane=shop/blue", "blue"),
        (True, "mesh-lane=shop/", ""),
        (True, "mesh-lane=other/gray", ""),
    ],
)
def test_a_lane_without_endpoints_falls_back_unless_it_is_strict(strict: bool, baggage: str, lane: str) -> None:
    group = LaneGroup("shop", strict=strict)
    _, _, choice = by_labels(Cluster("payments", lanes=group), assignment(BASE, GRAY), NOWHERE)
    assert choice is not None
    assert choice.lane(head(baggage)) == lane


def test_a_lane_whose_endpoints_all_leave_is_no_lane() -> None:
    leaving = endpoint(2, {"lane": "gray"}, health_status="DRAINING")
    _, _, choice = by_labels(Cluster("payments", lanes=LaneGroup("shop")), assignment(BASE, leaving), NOWHERE)
    assert choice is not None
    assert choice.lane(head("mesh-lane=shop/gray")) == ""


def test_subsets_are_kept_apart_by_lane_and_the_baseline_is_a_lane() -> None:
    subsets = LbSubsetConfig((SubsetSelector(("version",)),), fallback_policy="ANY_ENDPOINT")
    config, balanced, _ = by_labels(
        Cluster("payments", lanes=LaneGroup("shop"), subsets=subsets),
        assignment(endpoint(1, {"version": "v1"}), endpoint(2, {"version": "v1", "lane": "gray"})),
        NOWHERE,
    )
    assert config.subsets is not None
    assert {selector.keys for selector in config.subsets.selectors} == {("lane",), ("lane", "version")}
    assert config.subsets.fallback_policy == "NO_FALLBACK"
    assert balanced is not None
    found = [item.metadata.namespace("envoy.lb") for item in balanced.localities[0].endpoints]
    assert found == [Struct.of({"lane": "", "version": "v1"}), Struct.of({"lane": "gray", "version": "v1"})]


# ---------------------------------------------------------------- nearness

HERE = Locality("eu", "a", "one")
PLACES = {
    1: HERE,
    2: Locality("eu", "a", "two"),
    3: Locality("eu", "b", "one"),
    4: Locality("us", "a", "one"),
}


def priorities(rule: Nearby, here: Locality = HERE) -> dict[int, int]:
    parts = tuple(LocalityLbEndpoints((endpoint(port),), place) for port, place in PLACES.items())
    _, found, _ = by_labels(Cluster("payments", nearby=rule), ClusterLoadAssignment("payments", parts), here)
    assert found is not None
    return {part.endpoints[0].address.port: part.priority for part in found.localities}


@pytest.mark.parametrize(
    "rule, expected",
    [
        (Nearby(level=0), {1: 0, 2: 1, 3: 2, 4: 3}),
        (Nearby(level=1), {1: 0, 2: 0, 3: 1, 4: 2}),
        (Nearby(level=2), {1: 0, 2: 0, 3: 0, 4: 1}),
        (Nearby(level=1, max_level=2, strict=True), {1: 0, 2: 0, 3: 1}),
        (Nearby(level=1, max_level=1), {1: 0, 2: 0, 3: 1, 4: 1}),
        (Nearby(level=3), {1: 0, 2: 0, 3: 0, 4: 0}),
    ],
)
def test_nearness_is_the_order_of_priorities(rule: Nearby, expected: dict[int, int]) -> None:
    assert priorities(rule) == expected


def test_without_a_place_of_ones_own_nothing_is_near() -> None:
    assert set(priorities(Nearby(), NOWHERE).values()) == {0}


def test_nearness_orders_within_the_priorities_there_were() -> None:
    parts = (
        LocalityLbEndpoints((endpoint(1),), PLACES[4], priority=0),
        LocalityLbEndpoints((endpoint(2),), HERE, priority=1),
        LocalityLbEndpoints((endpoint(3),), PLACES[3], priority=1),
    )
    _, found, _ = by_labels(Cluster("p", nearby=Nearby()), ClusterLoadAssignment("p", parts), HERE)
    assert found is not None
    assert [(part.endpoints[0].address.port, part.priority) for part in found.localities] == [(1, 0), (2, 1), (3, 2)]
