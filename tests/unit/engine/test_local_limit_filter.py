"""The local rate limit filter in calls: descriptors, stages, levels, headers, runtime, shares of a cluster."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import Commit, Reply, Start
from meshlib.engine.filter_states import FilterSite, FilterStates
from meshlib.engine.local_limit import LocalRateLimitFilter, local_rate_limit
from meshlib.model.cluster import Cluster
from meshlib.model.filters import (
    HttpFilter,
    LocalRateLimit,
    LocalRateLimitDescriptor,
    PerFilterConfig,
    RouterFilter,
    TokenBucket,
)
from meshlib.model.headers import HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import ALWAYS, NEVER, FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.metadata import Struct
from meshlib.model.rate_limits import GenericKey, HitsAddend, RateLimit, RequestHeader
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.model.zones import Local
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, Dice, Player, get, runtime_of

PLENTY = TokenBucket(1000, 1, 60.0)
USER = RateLimit((RequestHeader("x-user", "user"),))
A, B = RateLimit((GenericKey("a"),)), RateLimit((GenericKey("b"),))
RNG = random.Random(1)


def limit(bucket: TokenBucket | None = PLENTY, **more: Any) -> LocalRateLimit:
    return LocalRateLimit("p", bucket, **{"enabled": ALWAYS, "enforced": ALWAYS, **more})


def descriptor(key: str, value: str, tokens: int, seconds: float = 60.0, **more: Any) -> LocalRateLimitDescriptor:
    return LocalRateLimitDescriptor(((key, value),), TokenBucket(tokens, 1, seconds), **more)


def of(config: LocalRateLimit, *limits: RateLimit, host: Sequence[RateLimit] = (), **site: Any) -> LocalRateLimitFilter:
    """The filter on a route with these actions."""
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up", rate_limits=limits, **site))
    found = local_rate_limit(
        config,
        "key",
        FilterStates(),
        FilterSite(route, VirtualHost("h", ("*",), (route,), rate_limits=tuple(host)), "up"),
    )
    assert found is not None
    return found


def ask(found: LocalRateLimitFilter, *users: str, now: float = 0.0) -> list[int]:
    """The status of a request of each user; 200 of one that passes."""
    heads = [RequestHead("GET", "http", "up", "/", [(b"x-user", user.encode())]) for user in users]
    return [getattr(found.on_request(head, now, RNG), "status", 200) for head in heads]


def test_each_descriptor_has_a_bucket_of_its_own() -> None:
    found = of(limit(descriptors=(descriptor("user", "ann", 2), descriptor("user", "bob", 1))), USER)
    assert ask(found, "ann", "bob", "ann", "bob", "ann", "eve", "eve") == [200, 200, 200, 429, 429, 200, 200]


def test_an_entry_without_a_value_gives_each_value_a_bucket_and_keeps_the_last_used() -> None:
    config = limit(descriptors=(descriptor("user", "", 1), descriptor("user", "ann", 2)), max_dynamic_descriptors=2)
    found = of(config, USER)
    assert ask(found, "ann", "ann", "ann") == [200, 200, 429], "the fixed one is hers"
    assert ask(found, "bob", "eve", "bob", "eve") == [200, 200, 429, 429]
    assert ask(found, "tom", "bob", "eve") == [200, 200, 200], "each of them was forgotten for another"


def test_the_slowest_bucket_is_asked_first_and_nothing_is_given_back() -> None:
    config = limit(descriptors=(descriptor("generic_key", "a", 3, 1.0), descriptor("generic_key", "b", 1, 60.0)))
    found = of(config, A, B)
    assert ask(found, "", "") == [200, 429]
    quick = of(config, A)
    assert ask(quick, "", "", "", "") == [200, 200, 200, 429]


@pytest.mark.parametrize("always,expected", [(True, [200, 429, 429]), (False, [200, 200, 429])])
def test_whether_the_default_bucket_counts_beside_descriptors(always: bool, expected: list[int]) -> None:
    config = limit(
        TokenBucket(1, 1, 60.0),
        descriptors=(descriptor("generic_key", "a", 2),),
        always_consume_default_token_bucket=always,
    )
    assert ask(of(config, A), "", "", "") == expected
    assert ask(of(config), "", "") == [200, 429], "without a descriptor it does"


def test_stages_levels_and_disabled_actions() -> None:
    bucket = (descriptor("generic_key", "a", 1), descriptor("generic_key", "b", 2))
    later, off = replace(A, stage=1), replace(A, disable_key="k")
    assert ask(of(limit(descriptors=bucket), later), "", "") == [200, 200]
    assert ask(of(limit(descriptors=bucket, stage=1), later), "", "") == [200, 429]
    assert ask(of(limit(descriptors=bucket), off), "", "") == [200, 200]
    assert ask(of(limit(descriptors=bucket), B, host=[A]), "", "") == [200, 200], "OVERRIDE"
    assert ask(of(limit(descriptors=bucket), host=[A]), "", "") == [200, 429], "the route has none"
    assert ask(of(limit(descriptors=bucket, vh_rate_limits="INCLUDE"), B, host=[A]), "", "") == [200, 429]
    assert ask(of(limit(descriptors=bucket, vh_rate_limits="IGNORE"), host=[A]), "", "") == [200, 200]
    assert ask(of(limit(descriptors=bucket), B, host=[A], include_vh_rate_limits=True), "", "") == [200, 429]


def test_actions_of_the_filter_itself_take_the_place_of_the_routes() -> None:
    config = limit(descriptors=(descriptor("generic_key", "a", 1), descriptor("user", "ann", 1)), rate_limits=(USER,))
    assert ask(of(config, A), "bob", "bob", "ann", "ann") == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "addend,expected",
    [(None, [200, 200, 200]), (HitsAddend(2), [200, 429, 429]), (HitsAddend(0), [429] * 3), (HitsAddend(5), [429] * 3)],
)
def test_what_a_request_counts_for_is_the_filters_actions_say(addend: HitsAddend | None, expected: list[int]) -> None:
    weighed = replace(A, hits_addend=addend)
    bucket = (descriptor("generic_key", "a", 3),)
    assert ask(of(limit(descriptors=bucket, rate_limits=(weighed,))), "", "", "") == expected
    assert ask(of(limit(descriptors=bucket), weighed), "", "", "") == [200, 200, 200], (
        "of a route's each counts for one"
    )


def test_hits_below_nothing_give_tokens_back() -> None:
    give = RateLimit((RequestHeader("x-user", "user"),), hits_addend=HitsAddend(format="%REQ(x-cost)%", negative=True))
    config = limit(descriptors=(descriptor("user", "ann", 2),), rate_limits=(give,))
    found = of(config)
    found._limiter.take(0.0, found._descriptors(head(b"ann", b"0")))  # type: ignore[misc]
    assert [found.on_request(head(b"ann", b"1"), 0.0, RNG) for _ in range(5)] == [None] * 5


def head(user: bytes, cost: bytes) -> RequestHead:
    return RequestHead("GET", "http", "up", "/", [(b"x-user", user), (b"x-cost", cost)])


def test_a_descriptor_in_shadow_mode_counts_and_lets_pass() -> None:
    states = FilterStates()
    config = limit(
        TokenBucket(2, 1, 60.0), descriptors=(descriptor("generic_key", "a", 1, shadow_mode=True),), rate_limits=(A,)
    )
    found = LocalRateLimitFilter(config, states)
    assert ask(found, "", "", "") == [200, 200, 429]
    assert dict(states.limits["p"].values()) == {
        "p.http_local_rate_limit.enabled": 3,
        "p.http_local_rate_limit.ok": 1,
        "p.http_local_rate_limit.rate_limited": 2,
        "p.http_local_rate_limit.enforced": 1,
        "p.http_local_rate_limit.shadow_mode": 1,
    }


def test_statistics_are_those_of_the_prefix() -> None:
    states = FilterStates()
    for enforced in (ALWAYS, NEVER):
        ask(LocalRateLimitFilter(limit(TokenBucket(2, 1, 60.0), enforced=enforced), states), *[""] * 3)
    ask(LocalRateLimitFilter(limit(TokenBucket(2), enabled=NEVER), states), *[""] * 3)
    counted = {name.rpartition(".")[2]: value for name, value in states.limits["p"].values()}
    assert counted == {"enabled": 6, "ok": 4, "rate_limited": 2, "enforced": 1, "shadow_mode": 0}


def test_a_request_it_is_not_enabled_for_takes_no_token() -> None:
    found = LocalRateLimitFilter(limit(TokenBucket(1, 1, 60.0), enabled=FractionalPercent(50)))
    draws = Dice(0.5, 0.49, 0.49)
    verdicts = [found.on_request(get(), 0.0, draws) for _ in range(3)]
    assert [getattr(verdict, "status", None) for verdict in verdicts] == [None, None, 429]


def test_it_is_enforced_for_a_share_of_those_over_the_limit() -> None:
    found = LocalRateLimitFilter(limit(TokenBucket(0), enforced=FractionalPercent(50)))
    verdicts = [found.on_request(get(), 0.0, Dice(draw)) for draw in (0.5, 0.49)]
    assert [getattr(verdict, "status", None) for verdict in verdicts] == [None, 429]


def test_unless_told_otherwise_it_does_nothing_as_in_envoy() -> None:
    found = LocalRateLimitFilter(LocalRateLimit("p", TokenBucket(0)))
    assert ask(found, *[""] * 5) == [200] * 5
    assert local_rate_limit(LocalRateLimit("p", None), "key", FilterStates(), site()) is None


def site(**runtime: object) -> FilterSite:
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"))
    return FilterSite(route, VirtualHost("h", ("*",), (route,)), "up", Struct.of(runtime))


def test_runtime_keys_take_the_place_of_fractions_and_the_bucket_stays() -> None:
    states = FilterStates()
    config = limit(TokenBucket(2, 1, 60.0), enforced=FractionalPercent(100, runtime_key="enforce"))
    first = local_rate_limit(config, "key", states, site())
    second = local_rate_limit(config, "key", states, site(enforce=0))
    assert first is not None
    assert second is not None
    assert local_rate_limit(config, "key", states, site()) is first
    assert ask(first, "", "", "") == [200, 200, 429]
    assert ask(second, "") == [200]
    assert ask(first, "") == [429]


# -------------------------------------------------------------------------------------------------------- whole calls


def snapshot(config: LocalRateLimit, route: Route | None = None, **more: Any) -> Snapshot:
    entries = (HttpFilter("limit", config), HttpFilter("router", RouterFilter()))
    routes = (route or Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up")),)
    manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), routes),)), entries)
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    return Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)}, **more)


def answered(runtime: Any, now: float = 0.0, at: float = 0.0) -> tuple[int, dict[bytes, bytes], Any]:
    """Status and headers of one call, and the request that was sent."""
    player = Player(runtime, get("up"), now=now)
    sent = player.last.head if isinstance(player.last, Start) else None
    if sent is not None:
        player.responds(200, at, (b"x-own", b"1"))
    last = player.last
    assert isinstance(last, Reply | Commit)
    headers = last.headers if last.headers is not None else last.outcome.headers  # type: ignore[union-attr]
    return getattr(last, "status", 200), dict(headers), sent


def test_every_response_says_what_is_left() -> None:
    runtime = runtime_of(snapshot(limit(TokenBucket(2, 1, 10.0), enable_x_ratelimit_headers=True)))
    assert figures(answered(runtime)) == (200, b"2", b"1", b"0")
    assert figures(answered(runtime, at=2.5)) == (200, b"2", b"0", b"8"), "when it comes"
    assert figures(answered(runtime, now=2.5)) == (429, b"2", b"0", b"8")
    _, headers, _ = answered(runtime, now=100.0)
    assert headers[b"x-own"] == b"1"


def figures(found: tuple[int, dict[bytes, bytes], Any]) -> tuple[int, bytes, bytes, bytes]:
    status, headers, _ = found
    return status, *(headers[b"x-ratelimit-" + name] for name in (b"limit", b"remaining", b"reset"))  # type: ignore[return-value]


def test_a_descriptor_may_say_that_responses_say_nothing_or_that_they_do() -> None:
    def config(option: Any, **more: Any) -> LocalRateLimit:
        said = (replace(A, x_ratelimit=option),)
        return limit(descriptors=(descriptor("generic_key", "a", 1),), rate_limits=said, **more)

    silent = runtime_of(snapshot(config("OFF", enable_x_ratelimit_headers=True)))
    assert [
        (status, b"x-ratelimit-limit" in headers) for status, headers, _ in (answered(silent), answered(silent))
    ] == [
        (200, False),
        (429, False),
    ]
    told = runtime_of(snapshot(config("DRAFT_VERSION_03")))
    assert figures(answered(told)) == (200, b"1", b"0", b"60")


@pytest.mark.parametrize(
    "more,expected",
    [
        ({"enable_retry_after_header": True}, b"10"),
        ({"enable_retry_after_header": True, "status": 503}, None),
        ({"enable_retry_after_header": True, "response_headers": (HeaderValueOption("retry-after", "7"),)}, b"7"),
        ({}, None),
    ],
)
def test_when_to_come_back(more: dict[str, Any], expected: bytes | None) -> None:
    runtime = runtime_of(snapshot(limit(TokenBucket(1, 1, 9.5), **more)))
    assert b"retry-after" not in answered(runtime)[1]
    assert answered(runtime)[1].get(b"retry-after") == expected


def test_what_is_over_a_limit_that_is_not_enforced_is_marked() -> None:
    mark = (HeaderValueOption("x-over", "%REQ(:path)%"),)
    config = limit(TokenBucket(1, 1, 60.0), enforced=NEVER, request_headers_to_add_when_not_enforced=mark)
    runtime = runtime_of(snapshot(config))
    assert answered(runtime)[2].get("x-over") is None
    status, _, sent = answered(runtime)
    assert (status, sent.get("x-over")) == (200, "/")


def test_a_routes_own_answer_says_what_is_left_too() -> None:
    route = Route(RouteMatch(PathMatcher("prefix", "/")), DirectResponseAction(204))
    runtime = runtime_of(snapshot(limit(TokenBucket(2, 1, 10.0), enable_x_ratelimit_headers=True), route))
    assert figures(answered(runtime)) == (204, b"2", b"1", b"0")


def test_a_limit_of_the_whole_local_cluster_is_shared_by_its_endpoints() -> None:
    def clusters(count: int) -> dict[str, Cluster]:
        own = static_cluster("us", [f"10.1.0.{number}:80" for number in range(count)])
        return {"up": static_cluster("up", ADDRESSES), "us": own}

    config = limit(TokenBucket(6, 1, 60.0), local_cluster_rate_limit=True)
    first = replace(snapshot(config, local=Local(cluster="us")), clusters=clusters(3))
    runtime = runtime_of(first)
    assert [answered(runtime)[0] for _ in range(3)] == [200, 200, 429]
    runtime.install(runtime.compile(replace(first, clusters=clusters(1)), runtime.plan))
    assert answered(runtime, now=60.0)[0] == 200
    assert answered(runtime, now=60.0)[0] == 429
    alone = runtime_of(replace(first, local=Local()))
    assert [answered(alone)[0] for _ in range(7)] == [200] * 6 + [429], "who does not know its cluster has all of it"


def test_the_most_specific_level_wins_and_has_a_bucket_of_its_own() -> None:
    own = PerFilterConfig("limit", limit(TokenBucket(1, 1, 60.0), status=503))
    match = RouteMatch(PathMatcher("prefix", "/"))
    route = Route(match, RouteAction("up"), typed_per_filter_config=(own,))
    runtime = runtime_of(snapshot(limit(TokenBucket(0)), route))
    assert [answered(runtime)[0] for _ in range(2)] == [200, 503]
