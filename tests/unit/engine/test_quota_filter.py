"""The filter of assigned quotas in calls: which bucket a request is of, and how it is denied."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.engine.commands import Reply, Start
from meshlib.engine.quota import Untold
from meshlib.flags import ResponseFlag
from meshlib.model.filters import HttpFilter, PerFilterConfig, RouterFilter
from meshlib.model.grpc_service import GrpcService
from meshlib.model.headers import HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matcher_tree import FieldMatcher, Input, MatcherList, OnMatch, SinglePredicate
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.rate_limit_quota import BucketSettings, RateLimitQuota, RateLimitQuotaOverride, RequestsPerTimeUnit
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.model.strings import StringMatcher
from meshlib.policy.quota import Assignment
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, Dice, Player, get, runtime_of

SERVICE = GrpcService(cluster="quotas")
USER = Input("header", "x-user")
ADA, BOB = (b"x-user", b"ada"), (b"x-user", b"bob")
BY_USER = BucketSettings((("user", USER),))
NONE = BucketSettings((("name", "none"), ("tier", Input("header", "x-tier"))), no_assignment="DENY_ALL")


def buckets(settings: BucketSettings = BY_USER, otherwise: BucketSettings | None = None) -> MatcherList[BucketSettings]:
    """The settings for whoever is a user, and those for others."""
    known = SinglePredicate(USER, StringMatcher("prefix", ""))
    return MatcherList((FieldMatcher(known, OnMatch(settings)),), None if otherwise is None else OnMatch(otherwise))


def world(config: RateLimitQuota, rng: Any = None, **route: Any) -> tuple[Any, Untold]:
    made = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"), **route)
    entries = (HttpFilter("quota", config), HttpFilter("router", RouterFilter()))
    manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), (made,)),)), entries)
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    running, quotas = runtime_of(rng=rng), Untold()
    running.filters.quotas = lambda: quotas
    running.install(
        running.compile(Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)}), None)
    )
    return running, quotas


def quota(settings: Any = None, **options: Any) -> RateLimitQuota:
    return RateLimitQuota("shop", SERVICE, settings or buckets(), **options)


def sent(runtime: Any, *headers: tuple[bytes, bytes], now: float = 0.0) -> Any:
    return Player(runtime, get("up", "/", *headers), now).last


def test_each_bucket_has_its_own_assignment() -> None:
    runtime, quotas = world(quota())
    book = quotas.book(SERVICE, "shop")
    assert [isinstance(sent(runtime, user), Start) for user in (ADA, BOB)] == [True, True]
    book.assign([Assignment((("user", "ada"),), RequestsPerTimeUnit(1, 60))], 0.0)
    assert [isinstance(sent(runtime, ADA), Start) for _ in range(3)] == [True, False, False]
    assert isinstance(sent(runtime, BOB), Start)
    assert {usage.bucket: (usage.allowed, usage.denied) for usage in book.reports(0.0)} == {
        (("user", "ada"),): (2, 2),
        (("user", "bob"),): (2, 0),
    }


def test_a_denied_request_is_answered() -> None:
    settings = BucketSettings(
        (("user", USER),),
        no_assignment="DENY_ALL",
        status=403,
        body=b"no",
        response_headers=(HeaderValueOption("x-denied", "1"),),
    )
    reply = sent(world(quota(buckets(settings)))[0], ADA)
    assert isinstance(reply, Reply)
    told = [(b"x-denied", b"1"), (b"content-type", b"text/plain")]
    assert (reply.status, reply.body, reply.headers) == (403, b"no", told)
    assert (reply.info.flag, reply.grpc_status) == (ResponseFlag.RL, 14)


def test_a_request_of_no_bucket_passes_untold() -> None:
    runtime, quotas = world(quota())
    assert isinstance(sent(runtime), Start)
    runtime, quotas = world(quota(buckets(otherwise=NONE)))
    assert isinstance(sent(runtime), Start)  # the name of its bucket cannot be made
    assert len(quotas.book(SERVICE, "shop")) == 0
    assert isinstance(sent(runtime, (b"x-tier", b"gold")), Reply)
    assert len(quotas.book(SERVICE, "shop")) == 1


def test_settings_without_a_name_are_the_fallback_for_all() -> None:
    settings = BucketSettings(no_assignment=RequestsPerTimeUnit(2, 60))
    runtime, quotas = world(quota(buckets(settings)))
    assert [isinstance(sent(runtime, user), Start) for user in (ADA, BOB, ADA)] == [True, True, False]
    assert len(quotas.book(SERVICE, "shop")) == 0


@pytest.mark.parametrize("roll,passes", [(0.4, False), (0.6, True)])
def test_what_is_not_enforced_is_marked(roll: float, passes: bool) -> None:
    mark = (HeaderValueOption("x-over", "1"),)
    config = quota(
        buckets(BucketSettings((("user", USER),), no_assignment="DENY_ALL")),
        enforced=FractionalPercent(50),
        request_headers_to_add_when_not_enforced=mark,
    )
    last = sent(world(config, Dice(roll))[0], ADA)
    assert isinstance(last, Start) is passes
    if passes:
        assert (b"x-over", b"1") in last.head.headers


def test_not_enabled_means_not_counted() -> None:
    runtime, quotas = world(quota(enabled=FractionalPercent(0)))
    assert isinstance(sent(runtime, ADA), Start)
    assert len(quotas.book(SERVICE, "shop")) == 0


def test_a_route_has_buckets_and_a_domain_of_its_own() -> None:
    own = RateLimitQuotaOverride("other", buckets(BucketSettings((("user", USER),), no_assignment="DENY_ALL")))
    runtime, quotas = world(quota(), typed_per_filter_config=(PerFilterConfig("quota", own),))
    assert isinstance(sent(runtime, ADA), Reply)
    assert (len(quotas.book(SERVICE, "shop")), len(quotas.book(SERVICE, "other"))) == (0, 1)
