"""The global rate limit filter in calls: what it asks, what it makes of answers, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshlib.context import CallHead
from meshlib.engine.commands import BodyEnd, Commit, Query, Reply, Start
from meshlib.engine.global_limit import NAMESPACE, Unreachable, x_ratelimit
from meshlib.engine.outbound import cluster_authority
from meshlib.engine.runtime import Runtime
from meshlib.engine.told import with_metadata
from meshlib.flags import ResponseFlag
from meshlib.grpc.metadata import GrpcHead
from meshlib.model.filters import HttpFilter, PerFilterConfig, RouterFilter
from meshlib.model.global_rate_limit import GlobalRateLimit, GlobalRateLimitPerRoute
from meshlib.model.grpc_service import GrpcService
from meshlib.model.headers import HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.metadata import Struct
from meshlib.model.outcome import Outcome
from meshlib.model.protobuf_wire import fields
from meshlib.model.rate_limits import Descriptor, GenericKey, MetadataValue, RateLimit, RequestHeader
from meshlib.model.request import RequestHead, ServedHead
from meshlib.model.route import ClusterHeader, DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.policy.rate_limit_service import DescriptorStatus, ServiceAnswer, request
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, ENDED, Dice, Player, get, runtime_of

SERVICE = GrpcService(cluster="limits")
LIMIT = GlobalRateLimit("shop", SERVICE)
USER = RateLimit((RequestHeader("x-user", "user"),))
ADA = (b"x-user", b"ada")
OK, OVER = ServiceAnswer(1), ServiceAnswer(2)


@dataclass
class Services:
    """Whoever asks: the questions, and what was told for nobody."""

    asked: list[tuple[GrpcService, bytes, float | None]] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)

    def question(self, service: GrpcService, data: bytes, timeout: float | None) -> Any:
        self.asked.append((service, data, timeout))
        return Unreachable()

    def tell(self, service: GrpcService, data: bytes, timeout: float | None) -> None:
        self.told.append(data)


@dataclass
class World:
    runtime: Runtime
    services: Services

    def call(self, *headers: tuple[bytes, bytes], path: str = "/") -> Player:
        return Player(self.runtime, get("up", path, *headers))

    @property
    def counted(self) -> dict[str, int]:
        return dict(self.runtime.filters.counts())


def world(
    config: GlobalRateLimit = LIMIT,
    *limits: RateLimit,
    runtime: Struct | None = None,
    rng: Any = None,
    more: Sequence[GlobalRateLimit] = (),
    **route: Any,
) -> World:
    action = route.pop("action", None) or RouteAction("up", rate_limits=limits or (USER,))
    made = Route(RouteMatch(PathMatcher("prefix", "/")), action, **route)
    behind = (HttpFilter(f"more {index}", each) for index, each in enumerate(more))
    entries = (HttpFilter("limit", config), *behind, HttpFilter("router", RouterFilter()))
    manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), (made,)),)), entries)
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    clusters = {name: static_cluster(name, ADDRESSES) for name in ("up", "limits")}
    services, running = Services(), runtime_of(rng=rng)
    running.filters.services = lambda: services
    snapshot = Snapshot(listeners={"out": listener}, clusters=clusters, runtime=runtime or Struct())
    running.install(running.compile(snapshot, None))
    return World(running, services)


def asked(data: bytes) -> str:
    """The domain of a request."""
    return next(value for number, _, value in fields(data) if number == 1).decode()  # type: ignore[union-attr]


def test_the_question_is_the_requests_descriptors() -> None:
    here = world()
    player = here.call(ADA)
    assert isinstance(player.last, Query)
    assert here.services.asked == [(SERVICE, request("shop", [Descriptor((("user", "ada"),))]), 0.02)]
    assert isinstance(player.send((OK, 0.01)), Start)
    assert here.counted == {"cluster.up.ratelimit.ok": 1}


def test_nobody_is_asked_about_a_request_without_descriptors() -> None:
    here = world()
    assert isinstance(here.call().last, Start)
    assert here.services.asked == []


@pytest.mark.parametrize("over", [False, True])
def test_the_service_adds_headers_to_the_request_and_to_the_response(over: bool) -> None:
    added = ((b"x-added", b"1"), (b"x-added", b"2"))
    answer = ServiceAnswer(2 if over else 1, request_headers=added, response_headers=((b"x-said", b"s"),))
    here = world(GlobalRateLimit("shop", SERVICE, enforced=FractionalPercent(0)))
    start = here.call(ADA)
    sent = start.send((answer, 0.01))
    assert [pair for pair in sent.head.headers if pair[0] == b"x-added"] == list(added)
    commit = start.send(_outcome(0.02, (b"own", b"o")))
    assert isinstance(commit, Commit)
    told = [(b"x-envoy-ratelimited", b"true")] if over else []
    assert commit.headers == [(b"own", b"o"), (b"x-said", b"s"), *told]
    assert start.send(BodyEnd(0.03)) == ENDED


def _outcome(at: float, *headers: tuple[bytes, bytes]) -> Outcome:
    made = Outcome(200, headers=list(headers))
    made.at = at
    return made


def test_over_the_limit_the_answer_is_the_filters() -> None:
    config = GlobalRateLimit(
        "shop", SERVICE, status=503, response_headers=(HeaderValueOption("x-own", "1"),), stat_prefix="outer"
    )
    here = world(config)
    player = here.call(ADA)
    reply = player.send((ServiceAnswer(2, raw_body=b"slowly", response_headers=((b"content-type", b"a/b"),)), 0.01))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.info.flag) == (503, b"slowly", ResponseFlag.RL)
    assert reply.headers == [(b"content-type", b"a/b"), (b"x-envoy-ratelimited", b"true"), (b"x-own", b"1")]
    assert here.counted == {"cluster.up.ratelimit.outer.over_limit": 1}


@pytest.mark.parametrize(
    "options,roll,denied",
    [
        ({}, 0.5, False),
        ({"failure_mode_deny": True}, 0.5, True),
        ({"failure_mode_deny": True, "failure_mode_deny_percent": FractionalPercent(30)}, 0.5, False),
        ({"failure_mode_deny_percent": FractionalPercent(30)}, 0.2, True),
    ],
)
def test_without_an_answer(options: dict[str, Any], roll: float, denied: bool) -> None:
    here = world(GlobalRateLimit("shop", SERVICE, **options), rng=Dice(roll))
    last = here.call(ADA).send((None, 0.02))
    if denied:
        assert isinstance(last, Reply)
        assert (last.status, last.info.flag, last.headers) == (500, ResponseFlag.RLSE, [])
        assert here.counted == {"cluster.up.ratelimit.error": 1}
    else:
        assert isinstance(last, Start)
        assert here.counted == {"cluster.up.ratelimit.error": 1, "cluster.up.ratelimit.failure_mode_allowed": 1}


@pytest.mark.parametrize("kind", [RequestHead, CallHead, ServedHead, GrpcHead], ids=lambda kind: kind.__name__)
def test_metadata_stay_with_the_request(kind: type[RequestHead]) -> None:
    head: Any = kind("GET", "http", "up", "/", [ADA])
    if isinstance(head, GrpcHead):
        head.channel = "channel"
    told = with_metadata(head, NAMESPACE, Struct.of({"left": 1}))
    for each in (told, told.like("/other", [*told.headers, (b"x", b"y")]), with_metadata(told, "more", Struct())):
        assert isinstance(each, kind)
        assert each.metadata.namespace(NAMESPACE) == Struct.of({"left": 1})
        assert (each.get("x-user"), each.protocol, each.remote_address) == ("ada", head.protocol, head.remote_address)
    assert told.like("/other", []).path == "/other"
    assert head.metadata.namespace(NAMESPACE) == Struct()


def test_what_the_first_service_says_is_a_descriptor_for_the_second() -> None:
    second = MetadataValue("plan", NAMESPACE, ("plan",))
    here = world(LIMIT, USER, more=[GlobalRateLimit("plans", SERVICE, (RateLimit((second,)),))])
    player = here.call(ADA)
    assert isinstance(player.send((ServiceAnswer(1, metadata=Struct.of({"plan": "gold"})), 0.01)), Query)
    assert here.services.asked[1][1] == request("plans", [Descriptor((("plan", "gold"),))])
    assert isinstance(player.send((OK, 0.02)), Start)


def test_an_unknown_answer_lets_pass() -> None:
    here = world()
    assert isinstance(here.call(ADA).send((ServiceAnswer(0), 0.01)), Start)


def test_a_route_that_answers_itself_asks_nobody() -> None:
    here = world(GlobalRateLimit("shop", SERVICE, (USER,)), action=DirectResponseAction(200, b"ok"))
    assert isinstance(here.call(ADA).last, Reply)
    assert here.services.asked == []


def test_the_cluster_that_the_request_names_is_counted() -> None:
    here = world(action=RouteAction(ClusterHeader("x-to"), rate_limits=(USER,)))
    here.call(ADA, (b"x-to", b"up")).send((OK, 0.01))
    assert here.counted == {"cluster.up.ratelimit.ok": 1}


def test_a_route_has_a_domain_of_its_own() -> None:
    own = PerFilterConfig(
        "limit", GlobalRateLimitPerRoute(domain="other", rate_limits=(RateLimit((GenericKey("k"),)),))
    )
    here = world(typed_per_filter_config=(own,))
    here.call()
    assert [asked(data) for _, data, _ in here.services.asked] == ["other"]


@pytest.mark.parametrize("value,asks", [(0.0, False), (100.0, True)])
def test_a_runtime_key_switches_a_limit_off(value: float, asks: bool) -> None:
    keyed = RateLimit((RequestHeader("x-user", "user"),), disable_key="users")
    said = Struct.of({"ratelimit.users.http_filter_enabled": value})
    here = world(LIMIT, keyed, runtime=said)
    assert isinstance(here.call(ADA).last, Query if asks else Start)


def test_runtime_keys_of_the_filters_own_fractions() -> None:
    config = GlobalRateLimit("shop", SERVICE, enabled=FractionalPercent(0, runtime_key="on"))
    assert isinstance(world(config).call(ADA).last, Start)
    assert isinstance(world(config, runtime=Struct.of({"on": 100})).call(ADA).last, Query)


LATER = RateLimit((GenericKey("later"),), apply_on_stream_done=True)
LATER_ASKED = request("shop", [Descriptor((("generic_key", "later"),))])


def test_what_counts_at_the_end_is_told_then() -> None:
    here = world(LIMIT, LATER)
    player = here.call()
    player.send(_outcome(0.02))
    assert here.services.told == []
    player.send(BodyEnd(0.03))
    assert here.services.told == [LATER_ASKED]


def test_a_refused_call_has_ended_too() -> None:
    here = world(LIMIT, USER, LATER)
    player = here.call(ADA)
    assert isinstance(player.send((OVER, 0.01)), Reply)
    assert here.services.told == [LATER_ASKED]


def test_a_caller_that_goes_away_while_the_service_is_asked_has_ended_too() -> None:
    here = world(LIMIT, USER, LATER)
    player = here.call(ADA)
    player.flow.close()
    assert here.services.told == [LATER_ASKED]


def test_without_anybody_who_asks_there_is_no_filter() -> None:
    here = world()
    here.runtime.filters.services = None
    here.runtime.install(here.runtime.compile(here.runtime.plan.snapshot, None))
    assert isinstance(here.call(ADA).last, Start)


@pytest.mark.parametrize(
    "statuses,expected",
    [
        ((), []),
        ((DescriptorStatus(1),), []),
        ((DescriptorStatus(1, 10, 60, "", 7, 30),), ["10, 10;w=60", "7", "30"]),
        (
            (DescriptorStatus(1, 10, 60, "minute", 7, 30), DescriptorStatus(2, 100, 3600, "hour", 0, 600)),
            ['100, 10;w=60;name="minute", 100;w=3600;name="hour"', "0", "600"],
        ),
        ((DescriptorStatus(1, 10, 0, "", 7, 30),), ["10", "7", "30"]),
    ],
)
def test_the_headers_of_the_draft(statuses: tuple[DescriptorStatus, ...], expected: list[str]) -> None:
    names = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
    assert x_ratelimit(statuses) == [(name, text.encode()) for name, text in zip(names, expected, strict=False)]


@pytest.mark.parametrize("told,seen", [("", "limits"), ("limits.shop", "limits.shop")])
def test_a_cluster_is_called_by_its_own_name(told: str, seen: str) -> None:
    """Whatever routes there are; no filter of any listener runs, and nothing is added to the request."""
    here = world()
    player = Player(here.runtime, get(cluster_authority("limits", told), "/x", ADA))
    assert isinstance(player.last, Start)
    assert (player.last.cluster.name, player.last.head.authority) == ("limits", seen)
    assert not [name for name, _ in player.last.head.headers if name.startswith(b"x-envoy-orig")]
