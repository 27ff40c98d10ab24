"""Whether traffic is shared as written: the test itself, and that it finds what is not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from meshlib.engine.runtime import Runtime
from meshlib.explain import lane_requests, traffic
from meshlib.explain.chi_squared import fit, survival
from meshlib.explain.traffic import NO_LANE, Split, drawn_splits, observed_splits
from meshlib.model.cluster import Cluster
from meshlib.model.lanes import Lane, LaneGroup, LaneRamp
from meshlib.model.matchers import (
    CookieMatcher,
    HeaderMatcher,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
)
from meshlib.model.request import RequestHead
from meshlib.model.route import (
    HashPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.model.snapshot import Snapshot
from meshlib.model.strings import StringMatcher

ALL = RouteMatch(PathMatcher("prefix", "/"))


@pytest.mark.parametrize(
    "statistic, degrees, p_value",
    [
        (3.841458820694124, 1, 0.05),
        (6.634896601021213, 1, 0.01),
        (5.991464547107979, 2, 0.05),
        (11.070497693516351, 5, 0.05),
        (124.34211340400408, 100, 0.05),
        (0.0157907740934312, 1, 0.9),
        (0.0, 3, 1.0),
        (1000.0, 2, 0.0),
    ],
)
def test_the_distribution_by_its_tables(statistic: float, degrees: int, p_value: float) -> None:
    assert survival(statistic, degrees) == pytest.approx(p_value, abs=1e-9)


def test_two_degrees_are_an_exponential() -> None:
    for value in (0.1, 1.0, 2.9, 3.1, 10.0, 60.0):
        assert survival(value, 2) == pytest.approx(2.718281828459045 ** (-value / 2), rel=1e-12)


def test_counts_that_fit_and_counts_that_do_not() -> None:
    assert fit({"a": 300, "b": 700}, {"a": 3, "b": 7}).statistic == 0.0
    assert fit({"a": 350, "b": 650}, {"a": 3, "b": 7}).p_value < 0.001
    assert fit({"a": 10, "c": 1}, {"a": 1, "c": 0}).p_value == 0.0  # where nothing may be
    assert fit({"a": 10, "d": 1}, {"a": 1}).p_value == 0.0
    assert fit({}, {"a": 1, "b": 1}).p_value == 1.0
    assert fit({"a": 5}, {"a": 1}).p_value == 1.0


def test_p_values_of_true_shares_are_uniform() -> None:
    rng, low = random.Random(11), 0
    for _ in range(2000):
        counts = Counter("a" if rng.random() < 0.2 else "b" for _ in range(200))
        low += fit(counts, {"a": 2, "b": 8}).p_value < 0.1
    assert 140 < low < 260  # a tenth of them


def plan(*routes: Route, **clusters: Any):
    host = VirtualHost("shop", ("shop",), routes)
    known = {name: Cluster(name, **more) for name, more in {"a": {}, "b": {}, **clusters}.items()}
    snapshot = Snapshot(routes={"r": RouteConfiguration("r", (host,))}, clusters=known)
    return Runtime(random.Random(1)).compile(snapshot, None)


def weighted(a: int, b: int, **more: Any) -> WeightedClusters:
    return WeightedClusters((WeightedCluster("a", a), WeightedCluster("b", b)), **more)


@pytest.mark.parametrize(
    "action",
    [
        RouteAction(weighted(90, 10)),
        RouteAction(weighted(90, 10, header_name="x-number")),
        RouteAction(weighted(90, 10, use_hash_policy=True), hash_policies=(HashPolicy("header", "x-user"),)),
        RouteAction(weighted(90, 10, use_hash_policy=True), hash_policies=(HashPolicy("cookie", "session"),)),
        RouteAction(weighted(90, 10, use_hash_policy=True), hash_policies=(HashPolicy("query_parameter", "u"),)),
    ],
)
def test_weighted_routes_are_drawn_by_the_engine(action: RouteAction) -> None:
    (split,) = drawn_splits(plan(Route(ALL, action, "split")), 20_000, seed=3)
    assert (split.name, split.shares) == ("shop/split", {"a": 90, "b": 10})
    assert sum(split.counts.values()) == 20_000
    assert split.fit.p_value > 0.001
    assert 1500 < split.counts["b"] < 2500


@pytest.mark.parametrize("by", [(), (HashPolicy("header", "x-user"),), (HashPolicy("source_ip"),)])
def test_lanes_are_drawn_by_the_engine(by: tuple[HashPolicy, ...]) -> None:
    lanes = LaneGroup("g", lanes=(Lane("gray", (ALL,), 30.0, by), Lane("closed", share=5.0)))
    (split,) = drawn_splits(plan(a={"lanes": lanes}, b={"lanes": lanes}), 20_000, seed=3)
    assert split.name == "lane g/gray"
    assert split.shares == {"gray": 30.0, NO_LANE: 70.0}
    assert split.fit.p_value > 0.001


def beta(**more: Any) -> RouteMatch:
    return RouteMatch(PathMatcher("prefix", "/shop"), (tag("beta"),), **more)


def tag(value: str, kind: Any = "exact", **more: Any) -> HeaderMatcher:
    return HeaderMatcher("x-user-tag", StringMatcher(kind, value), **more)


@pytest.mark.parametrize(
    "matches",
    [
        (beta(),),
        (beta(), beta(cookies=(CookieMatcher("tier", StringMatcher("exact", "gold")),))),
        (beta(query_parameters=(QueryParameterMatcher("v", StringMatcher("exact", "2", ignore_case=True)),)),),
        (RouteMatch(PathMatcher("prefix", "/"), cookies=(CookieMatcher("tier", StringMatcher("exact", "gold")),)),),
    ],
)
def test_requests_that_match_enter_a_lane_and_no_others(matches: tuple[RouteMatch, ...]) -> None:
    lanes = LaneGroup("g", lanes=(Lane("gray", matches, ramp=LaneRamp(0.0, 60.0)),))
    (split,) = drawn_splits(plan(a={"lanes": lanes}), 1000, seed=3)
    assert (split.name, split.untested) == ("lane g/gray", "")
    assert split.shares == split.counts == {"gray": 500, NO_LANE: 500}
    with pytest.raises(KeyError, match="lane g/gray"):
        list(observed_splits(plan(a={"lanes": lanes}), {"lane g/gray": {"gray": 1}}))


def test_one_request_in_the_wrong_lane_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = LaneGroup("g", lanes=(Lane("gray", (beta(),)),))
    made = lane_requests.half_matching

    def one_wrong(lane: Lane, requests: int) -> Iterator[tuple[RequestHead, bool]]:
        for number, (head, matches) in enumerate(made(lane, requests)):
            yield head, matches != (number == 7)

    monkeypatch.setattr(traffic, "half_matching", one_wrong)
    (split,) = drawn_splits(plan(a={"lanes": lanes}), 1000, seed=3)
    assert split.counts == {"gray": 500, NO_LANE: 499, f"{NO_LANE} instead of gray": 1}
    assert (split.fit.p_value, split.untested) == (0.0, "")


@pytest.mark.parametrize(
    "match",
    [
        RouteMatch(PathMatcher("prefix", "/"), (tag("beta", "prefix"),)),
        RouteMatch(PathMatcher("prefix", "/"), (tag("beta", invert=True),)),
        RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher("x-user-tag", Present()),)),
        RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher(":method", StringMatcher("exact", "GET")),)),
        RouteMatch(PathMatcher("prefix", "/shop")),
        beta(grpc=True),
        beta(query_parameters=(QueryParameterMatcher("v", StringMatcher("exact", "a b")),)),
        RouteMatch(PathMatcher("safe_regex", "/.*"), (tag("beta"),)),
    ],
)
def test_a_match_that_is_not_simple_is_not_drawn(match: RouteMatch) -> None:
    lanes = LaneGroup("g", lanes=(Lane("gray", (match,)),))
    (split,) = drawn_splits(plan(a={"lanes": lanes}), 1000, seed=3)
    assert (split.name, split.untested, split.counts) == ("lane g/gray", "not drawn: the match is not simple", {})


def test_a_lane_of_everybody_has_nothing_to_test() -> None:
    (split,) = drawn_splits(plan(a={"lanes": LaneGroup("g", lanes=(Lane("all", (ALL,)),))}), 1000, seed=3)
    assert split.untested == "not drawn: every request matches"


def test_two_shares_of_one_cluster_have_nothing_to_test() -> None:
    same = WeightedClusters((WeightedCluster("a", 90), WeightedCluster("a", 10)))
    (split,) = drawn_splits(plan(Route(ALL, RouteAction(same), "split")), 1000, seed=3)
    assert (split.shares, split.fit.degrees, split.untested) == ({"a": 100}, 0, "nothing to test")
    assert Split("s", {"a": 1}, {"b": 1}).untested == ""


def test_what_was_observed_is_held_against_what_is_written() -> None:
    found = plan(Route(ALL, RouteAction(weighted(50, 50)), "split"), Route(ALL, RouteAction("a"), "whole"))
    even, uneven = ({"a": 502, "b": 498}, {"a": 600, "b": 400})
    assert [split.fit.p_value > 0.5 for split in observed_splits(found, {"shop/split": even})] == [True]
    assert [split.fit.p_value < 1e-6 for split in observed_splits(found, {"shop/split": uneven})] == [True]
    with pytest.raises(KeyError, match="shop/whole"):
        list(observed_splits(found, {"shop/whole": even}))


def test_a_route_in_two_listeners_is_one_place() -> None:
    found = plan(Route(ALL, RouteAction(weighted(50, 50)), "split"))
    found.outbound.rest = [*found.outbound.rest, *found.outbound.rest]
    assert [type(split) for split in drawn_splits(found, 10, 0)] == [Split]
