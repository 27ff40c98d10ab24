"""What a route does beside its attempts, on flow values: copies, redirects that are followed, sticky sessions."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from meshlib.context import CallHead, call_metadata
from meshlib.engine.call import MIRROR_TIMEOUT, mirror_flow
from meshlib.engine.commands import Abandoned, BodyEnd, Commit, Discard, Fail, Mirror, Reply, Start
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import Cluster
from meshlib.model.context_matchers import FilterStateMatcher, MetadataMatcher
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.filters import HttpFilter, PerFilterConfig, RouterFilter
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.metadata import Struct
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.request import RequestHead
from meshlib.model.route import (
    DirectResponseAction,
    HostRewrite,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
)
from meshlib.model.session import SessionCookie, SessionHeader, StatefulSession
from meshlib.model.snapshot import Snapshot
from meshlib.model.strings import StringMatcher
from meshlib.routing.session import CookieSession, HeaderSession
from meshlib.sources.static import static_cluster
from parts.flow import ENDED, Dice, Player, at_time, get, held

SHADOW = "10.9.9.9:80"
ADDRESSES = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")


def routes(*routes: tuple[str, Any], **host: Any) -> VirtualHost:
    """A virtual host of named routes by prefix."""
    made = tuple(
        Route(RouteMatch(PathMatcher("prefix", prefix)), action, prefix.strip("/")) for prefix, action in routes
    )
    return VirtualHost("host", ("*",), made, **host)


def runtime(
    host: VirtualHost, *more: VirtualHost, clusters: tuple[Cluster, ...] = (), rng: Any = None, filters: Any = ()
) -> Runtime:
    known = (static_cluster("up", ADDRESSES), static_cluster("shadow", [SHADOW]), *clusters)
    config = RouteConfiguration("routes", (host, *more))
    manager = HttpConnectionManager(config, (*filters, HttpFilter("router", RouterFilter())))
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    made = Runtime(rng or random.Random(1), unknown_hosts="reject")
    snapshot = Snapshot(listeners={"out": listener}, clusters={cluster.name: cluster for cluster in known}, version="1")
    made.install(made.compile(snapshot, None))
    return made


def started(player: Player) -> Start:
    """Let copies begin; the attempt that follows."""
    while isinstance(player.last, Mirror):
        player.send(0.0)
    assert isinstance(player.last, Start)
    return player.last


def mirrors(player: Player) -> list[Mirror]:
    started(player)
    return [command for command in player.commands if isinstance(command, Mirror)]


def headers(head: RequestHead) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in head.headers}


# ----------------------------------------------------------------------------------------------------------- mirroring


def test_a_copy_is_the_request_as_it_is_sent_with_another_host() -> None:
    action = RouteAction(
        "up",
        timeout=7.0,
        prefix_rewrite="/new",
        host_rewrite=HostRewrite("literal", "written.test:81"),
        request_mirror_policies=(RequestMirrorPolicy("shadow"),),
    )
    player = Player(runtime(routes(("/a", action))), get("up", "/a/b", (b"x-in", b"1")))
    (mirror,) = mirrors(player)
    assert (mirror.head.path, mirror.head.authority) == ("/new/b", "written.test-shadow:81")
    assert headers(mirror.head) == headers(started(player).head) | {"host": "written.test-shadow:81"}
    assert (mirror.decision.cluster_name, mirror.deadline, mirror.traced) == ("shadow", 7.0, True)


@pytest.mark.parametrize(
    ("policy", "host", "changed"),
    [
        (RequestMirrorPolicy("shadow"), "up-shadow", {}),
        (RequestMirrorPolicy("shadow", keeps_host=True), "up", {}),
        (RequestMirrorPolicy("shadow", host_rewrite_literal="copy.test:9"), "copy.test:9", {}),
        (
            RequestMirrorPolicy(
                cluster_header="x-to",
                request_headers=(
                    HeaderMutations(remove=("x-in",)),
                    HeaderMutations((HeaderValueOption("x-new", "%REQ(x-in)%none"),)),
                ),
            ),
            "up-shadow",
            {"x-in": None, "x-new": "none"},
        ),
    ],
)
def test_what_a_policy_says_of_the_copy(policy: RequestMirrorPolicy, host: str, changed: dict[str, Any]) -> None:
    table = routes(("/", RouteAction("up", request_mirror_policies=(policy,))))
    player = Player(runtime(table), get("up", "/", (b"x-in", b"1"), (b"x-to", b"shadow")))
    (mirror,) = mirrors(player)
    assert mirror.head.authority == headers(mirror.head)["host"] == host
    assert {name: headers(mirror.head).get(name) for name in changed} == changed
    assert headers(started(player).head)["x-in"] == "1", "the request itself is as it was"


def test_policies_of_the_virtual_host_and_of_the_configuration_are_for_routes_without_their_own() -> None:
    own = RouteAction("up", request_mirror_policies=(RequestMirrorPolicy("shadow", host_rewrite_literal="own"),))
    host = routes(
        ("/own", own),
        ("/", RouteAction("up")),
        request_mirror_policies=(RequestMirrorPolicy("shadow", host_rewrite_literal="host"),),
    )
    made = runtime(host)
    assert [mirror.head.authority for mirror in mirrors(Player(made, get("up", "/own")))] == ["own"]
    assert [mirror.head.authority for mirror in mirrors(Player(made, get("up", "/x")))] == ["host"]


def test_a_fraction_is_mirrored_by_the_dice() -> None:
    share = RequestMirrorPolicy("shadow", fraction=FractionalPercent(25))
    host = routes(("/", RouteAction("up", request_mirror_policies=(share,))))
    made = runtime(host, rng=random.Random(3))
    counts = [len(mirrors(Player(made, get("up")))) for _ in range(4000)]
    assert 0.22 < sum(counts) / len(counts) < 0.28
    nothing = RequestMirrorPolicy("shadow", fraction=FractionalPercent(0))
    host = routes(("/", RouteAction("up", request_mirror_policies=(nothing,))))
    assert mirrors(Player(runtime(host, rng=Dice(0.0)), get("up"))) == []


def test_the_runtime_may_say_another_fraction() -> None:
    keyed = RequestMirrorPolicy("shadow", fraction=FractionalPercent(0, runtime_key="mirror.share"))
    config = RouteConfiguration("routes", (routes(("/", RouteAction("up", request_mirror_policies=(keyed,)))),))
    clusters = {"up": static_cluster("up", ADDRESSES), "shadow": static_cluster("shadow", [SHADOW])}
    for said, copies in (({}, 0), ({"mirror.share": 100}, 1)):
        made = Runtime(random.Random(1), unknown_hosts="reject")
        snapshot = Snapshot(clusters=clusters, routes={"routes": config}, runtime=Struct.of(said))
        made.install(made.compile(snapshot, None))
        assert len(mirrors(Player(made, get("up")))) == copies


def test_shares_of_one_request_see_the_same_sample() -> None:
    policies = [RequestMirrorPolicy("shadow", fraction=FractionalPercent(share)) for share in (60, 30, 60)]
    host = routes(("/", RouteAction("up", request_mirror_policies=tuple(policies))))
    made = runtime(host, rng=random.Random(3))
    assert {len(mirrors(Player(made, get("up")))) for _ in range(200)} == {0, 2, 3}


def test_nothing_is_copied_to_a_cluster_that_is_not_there() -> None:
    unknown = (RequestMirrorPolicy("nowhere"), RequestMirrorPolicy(cluster_header="x-none"))
    host = routes(("/", RouteAction("up", request_mirror_policies=unknown)))
    assert mirrors(Player(runtime(host), get("up"))) == []


def test_one_copy_whatever_becomes_of_the_attempts() -> None:
    """A request is mirrored when it is first sent: not when it is refused, and not again when it is retried."""
    action = RouteAction(
        "up",
        retry_policy=RetryPolicy(("5xx",), num_retries=2),
        request_mirror_policies=(RequestMirrorPolicy("shadow"),),
    )
    player = Player(runtime(routes(("/", action))), get("up"))
    started(player)
    for at in (1.0, 2.0):
        player.responds(503, at)
        while not isinstance(player.last, Start):
            player.send(at)
    player.responds(200, 3.0)
    assert player.body_ends(4.0) == ENDED
    assert player.kinds.count("Mirror") == 1
    empty = replace(action, cluster="empty")
    refused = Player(runtime(routes(("/", empty)), clusters=(static_cluster("empty", []),)), get("up"))
    assert refused.kinds == ["Fail"]


def test_a_copy_is_a_call_of_its_own() -> None:
    """Balanced, limited and counted on its own cluster; what becomes of it is nobody else's."""
    action = RouteAction("up", timeout=None, request_mirror_policies=(RequestMirrorPolicy("shadow"),))
    made = runtime(routes(("/", action)))
    events: list[Any] = []
    made.observers = (events.append,)
    player = Player(made, get("up"))
    (mirror,) = mirrors(player)
    copy = mirror_flow(made, mirror, 5.0)
    start = next(copy)
    assert isinstance(start, Start)
    assert (start.host.address, start.deadline) == (SHADOW, 5.0 + MIRROR_TIMEOUT)
    assert held(made).keys() >= {SHADOW, started(player).host.address}
    failed = copy.send(at_time(Outcome(failure=Failure.TIMEOUT), 20.0))
    assert isinstance(failed, Fail)
    copy.close()
    assert SHADOW not in held(made)
    assert made.state.cluster("shadow").stats["upstream_rq_timeout"].value == 1
    player.responds(200, 21.0)
    player.body_ends(22.0)
    assert held(made) == {}
    assert made.state.cluster("up").stats["upstream_rq_total"].value == 1
    assert [(event.info.cluster, event.flag) for event in events if hasattr(event, "info")] == [
        ("shadow", "UT"),
        ("up", None),
    ]


def test_a_call_given_up_while_its_copy_begins_gives_everything_back() -> None:
    action = RouteAction("up", request_mirror_policies=(RequestMirrorPolicy("shadow"),))
    made = runtime(routes(("/", action)))
    events: list[Any] = []
    made.observers = (events.append,)
    player = Player(made, get("up"))
    assert isinstance(player.last, Mirror)
    with pytest.raises(Abandoned):
        player.flow.throw(Abandoned(1.0))
    assert held(made) == {}
    assert [event.flag for event in events] == ["DC"]


# ----------------------------------------------------------------------------------------------------------- redirects

FOLLOWS = InternalRedirectPolicy(max_internal_redirects=2, codes=(302, 303, 307))


def redirected(player: Player, where: str, status: int = 302) -> Any:
    """Answer the attempt with a redirect; what the flow does then."""
    started(player)
    player.responds(status, 1.0, (b"location", where.encode()))
    if isinstance(player.last, Discard):
        player.send(2.0)
    return player.last


def test_a_redirect_is_routed_again() -> None:
    host = routes(
        ("/from", RouteAction("up", prefix_rewrite="/rewritten", internal_redirect=FOLLOWS)),
        ("/to", RouteAction("shadow", timeout=3.0)),
    )
    made = runtime(host)
    events: list[Any] = []
    made.observers = (events.append,)
    player = Player(made, get("up", "/from/x?y=1"))
    start = redirected(player, "http://other.test:81/to/z?q#fragment")
    assert isinstance(start, Start)
    assert (start.head.method, start.head.authority, start.head.path) == ("GET", "other.test:81", "/to/z?q")
    assert headers(start.head)["x-envoy-original-url"] == "http://up/rewritten/x?y=1"
    assert (start.host.address, start.deadline, start.attempt) == (SHADOW, 5.0, 1)
    commit = player.responds(200, 3.0)
    assert isinstance(commit, Commit)
    assert (commit.info.route, commit.info.internal_redirects, commit.info.cluster) == ("host/to", 1, "shadow")
    assert player.body_ends(4.0) == ENDED
    assert held(made) == {}
    assert made.state.cluster("up").stats["upstream_internal_redirect_succeeded_total"].value == 1
    assert [event.duration for event in events if hasattr(event, "info")] == [4.0], "one call, from its beginning"


def test_a_redirect_is_routed_by_what_the_call_carries_too() -> None:
    gold = MetadataMatcher("shop", ("tier",), StringMatcher("exact", "gold"))
    near = FilterStateMatcher("zone", StringMatcher("exact", "eu"))
    to = RouteMatch(PathMatcher("prefix", "/to"))
    host = VirtualHost(
        "host",
        ("*",),
        (
            Route(RouteMatch(PathMatcher("prefix", "/from")), RouteAction("up", internal_redirect=FOLLOWS)),
            Route(replace(to, dynamic_metadata=(gold,), filter_state=(near,)), RouteAction("shadow")),
            Route(to, RouteAction("up")),
        ),
    )
    head = CallHead("GET", "http", "up", "/from", [(b"Host", b"up")])
    with call_metadata({"shop": {"tier": "gold"}}, {"zone": "eu"}):
        start = redirected(Player(runtime(host), head), "http://up/to")
    assert isinstance(start, Start)
    assert start.host.address == SHADOW


@pytest.mark.parametrize(
    ("policy", "where", "why"),
    [
        (FOLLOWS, "/relative", "bad-location"),
        (FOLLOWS, "", "bad-location"),
        (FOLLOWS, "http://up/to and more", "bad-location"),
        (FOLLOWS, "https://up/to", "unsafe-scheme"),
        (replace(FOLLOWS, allow_cross_scheme=True), "ftp://up/to", "bad-location"),
        (replace(FOLLOWS, allow_cross_scheme=True, safe_cross_scheme=True), "https://up/to", "predicate"),
        (replace(FOLLOWS, max_internal_redirects=0), "http://up/to", "too-many-redirects"),
        (replace(FOLLOWS, allowed_routes=("else",)), "http://up/to", "predicate"),
        (FOLLOWS, "http://up/nowhere", "no-route"),
        (FOLLOWS, "http://up", "no-route"),
    ],
)
def test_what_is_not_followed_is_the_callers(policy: InternalRedirectPolicy, where: str, why: str) -> None:
    host = routes(("/from", RouteAction("up", internal_redirect=policy)), ("/to", RouteAction("up")))
    made = runtime(host)
    commit = redirected(Player(made, get("up", "/from")), where)
    assert isinstance(commit, Commit)
    assert (commit.outcome.status, commit.info.why_not_redirected) == (302, why)
    assert made.state.cluster("up").stats["upstream_internal_redirect_failed_total"].value == 1


def test_a_status_that_is_none_of_the_policys_is_nothing_to_follow() -> None:
    made = runtime(routes(("/", RouteAction("up", internal_redirect=FOLLOWS))))
    commit = redirected(Player(made, get("up")), "http://up/", 301)
    assert isinstance(commit, Commit)
    assert commit.info.why_not_redirected == ""


def test_a_body_that_cannot_be_sent_again_is_not_redirected() -> None:
    made = runtime(routes(("/", RouteAction("up", internal_redirect=FOLLOWS))))
    commit = redirected(Player(made, get("up"), replayable=False), "http://up/")
    assert isinstance(commit, Commit)
    assert commit.info.why_not_redirected == "not-replayable"


def test_redirects_of_a_call_are_counted_and_bounded() -> None:
    made = runtime(routes(("/", RouteAction("up", internal_redirect=FOLLOWS))))
    player = Player(made, get("up"))
    assert isinstance(redirected(player, "http://up/1"), Start)
    assert isinstance(redirected(player, "http://up/2"), Start)
    commit = redirected(player, "http://up/3")
    assert isinstance(commit, Commit)
    assert (commit.info.internal_redirects, commit.info.why_not_redirected) == (2, "too-many-redirects")


def test_a_route_redirects_to_another_but_once() -> None:
    policy = replace(FOLLOWS, max_internal_redirects=9, previous_routes=True)
    made = runtime(routes(("/", RouteAction("up", internal_redirect=policy))))
    player = Player(made, get("up"))
    assert isinstance(redirected(player, "http://up/1"), Start)
    commit = redirected(player, "http://up/2")
    assert isinstance(commit, Commit)
    assert commit.info.why_not_redirected == "predicate"


@pytest.mark.parametrize(
    ("status", "method", "becomes", "bodiless"),
    [(303, "POST", "GET", True), (303, "HEAD", "HEAD", False), (307, "POST", "POST", False)],
)
def test_after_see_other_the_request_is_a_get_without_a_body(
    status: int, method: str, becomes: str, bodiless: bool
) -> None:
    made = runtime(routes(("/", RouteAction("up", internal_redirect=FOLLOWS))))
    head = RequestHead(method, "http", "up", "/", [(b"Host", b"up"), (b"Content-Length", b"4"), (b"x-a", b"1")])
    player = Player(made, head)
    start = redirected(player, "http://up/there", status)
    assert isinstance(start, Start)
    assert start.head.method == becomes
    assert ("content-length" in headers(start.head)) != bodiless
    (dropped,) = [command for command in player.commands if isinstance(command, Discard)]
    assert dropped.bodiless == bodiless


def test_headers_of_the_response_go_into_the_new_request() -> None:
    policy = replace(FOLLOWS, headers_to_copy=("x-a", "x-gone"))
    made = runtime(routes(("/", RouteAction("up", internal_redirect=policy))))
    player = Player(made, get("up", "/", (b"X-A", b"mine"), (b"X-Gone", b"1"), (b"x-stays", b"1")))
    player.responds(302, 1.0, (b"location", b"http://up/"), (b"X-a", b"1"), (b"x-A", b"2"))
    start = player.send(2.0)
    assert [pair for pair in start.head.headers if pair[0].startswith(b"x-")][:3] == [
        (b"x-stays", b"1"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
    ]
    assert "x-gone" not in headers(start.head)


def test_a_redirect_may_lead_to_an_answer_of_the_meshs_own() -> None:
    host = routes(("/from", RouteAction("up", internal_redirect=FOLLOWS)), ("/to", DirectResponseAction(418, b"tea")))
    made = runtime(host)
    reply = redirected(Player(made, get("up", "/from")), "http://up/to")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.info.internal_redirects) == (418, 1)
    assert held(made) == {}


# ------------------------------------------------------------------------------------------------------------ sessions


def sticky(state: Any, strict: bool = False, cluster: Cluster | None = None, **more: Any) -> Runtime:
    filters = (HttpFilter("session", StatefulSession(state, strict)),)
    host = routes(("/", RouteAction("up" if cluster is None else cluster.name, **more)))
    return runtime(host, clusters=() if cluster is None else (cluster,), filters=filters)


HEADER = SessionHeader("x-session")


def wanting(address: str) -> RequestHead:
    return get("up", "/", HeaderSession(HEADER).header(address, 0.0))


def test_the_caller_is_told_of_its_endpoint_once() -> None:
    made = sticky(HEADER)
    player = Player(made, get("up"))
    address = started(player).host.address
    commit = player.responds(200, 1.0, (b"x-own", b"1"))
    assert dict(commit.headers)[b"x-own"] == b"1"
    told = commit.headers[-1]
    assert told == HeaderSession(HEADER).header(address, 0.0)
    for _ in range(5):
        again = Player(made, get("up", "/", told))
        assert started(again).host.address == address
        assert again.responds(200, 1.0).headers is None, "it knows"
        again.body_ends(2.0)


@pytest.mark.parametrize("strict", [False, True])
def test_an_endpoint_that_is_not_to_be_used(strict: bool) -> None:
    endpoints = tuple(
        LbEndpoint(Address(f"10.0.0.{number}", 80), health_status=health)  # type: ignore[arg-type]
        for number, health in enumerate(("HEALTHY", "DEGRADED", "UNKNOWN", "DRAINING", "UNHEALTHY", "TIMEOUT"))
    )
    assignment = ClusterLoadAssignment("sick", (LocalityLbEndpoints(endpoints=endpoints),))
    made = sticky(HEADER, strict, Cluster("sick", load_assignment=assignment, healthy_panic_threshold=0.0))
    for endpoint in endpoints:
        player = Player(made, wanting(str(endpoint.address)))
        if endpoint.health_status in ("HEALTHY", "DEGRADED", "UNKNOWN"):
            assert started(player).host.endpoint == endpoint
        elif strict:
            assert isinstance(player.last, Fail)
            assert player.last.failure.flag == "UH"
        else:
            assert started(player).host.endpoint.health_status in ("HEALTHY", "DEGRADED", "UNKNOWN")
    unknown = Player(made, wanting("10.99.0.1:80"))
    assert isinstance(unknown.last, Fail) == strict


def test_a_retry_is_balanced_as_any_other() -> None:
    made = sticky(HEADER, True, retry_policy=RetryPolicy(("5xx",), num_retries=9, previous_hosts=True))
    player = Player(made, wanting(ADDRESSES[0]))
    seen = []
    for at in range(6):
        seen.append(started(player).host.address)
        player.responds(503, float(at))
        while not isinstance(player.last, Start):
            player.send(float(at))
    assert seen[0] == ADDRESSES[0]
    assert set(seen[1:]) > {ADDRESSES[1]}, "elsewhere, although the session is strict"


def test_a_route_can_have_a_session_of_its_own_or_none() -> None:
    filters = (HttpFilter("session", StatefulSession(HEADER)),)
    own = PerFilterConfig("session", StatefulSession(SessionHeader("x-own")))
    off = PerFilterConfig("session", None, disabled=True)
    host = routes(("/own", RouteAction("up")), ("/off", RouteAction("up")), ("/", RouteAction("up")))
    with_own, without, plain = host.routes
    host = replace(
        host,
        routes=(
            replace(with_own, typed_per_filter_config=(own,)),
            replace(without, typed_per_filter_config=(off,)),
            plain,
        ),
    )
    made = runtime(host, filters=filters)

    def told(path: str) -> list[bytes]:
        player = Player(made, get("up", path))
        started(player)
        commit = player.responds(200, 1.0)
        player.body_ends(2.0)
        return [name for name, _ in commit.headers or ()]

    assert (told("/own"), told("/off"), told("/")) == ([b"x-own"], [], [b"x-session"])
    assert made.plan.find("http", "up").routes[1].shares[0].actions is None, "what is off costs nothing"  # type: ignore[union-attr]


def test_cookies_are_envoys() -> None:
    """The bytes that Envoy 1.40 wrote for the same address, lifetime and moment."""
    state = SessionCookie("sess", "/s", 120, (("SameSite", "Lax"), ("HttpOnly", "")))
    name, value = CookieSession(state).header("127.0.0.1:36203", 1795266244.7)
    assert name == b"set-cookie"
    assert value == (b'sess="Cg8xMjcuMC4wLjE6MzYyMDMQvK6G2AY="; Max-Age=120; Path=/s; SameSite=Lax; HttpOnly; HttpOnly')
    plain = CookieSession(SessionCookie("s0"))
    assert plain.header("127.0.0.1:44353", 0.0)[1] == b's0="Cg8xMjcuMC4wLjE6NDQzNTM="; HttpOnly'


@pytest.mark.parametrize(
    ("cookie", "wanted"),
    [
        (b's="Cg8xMjcuMC4wLjE6MzYyMDMQvK6G2AY="', "127.0.0.1:36203"),  # until 1795266364
        (b"s=Cg8xMjcuMC4wLjE6MzYyMDM=", "127.0.0.1:36203"),  # for ever
        (b"a=1; s=Cg8xMjcuMC4wLjE6MzYyMDMQAQ==; b=2", ""),  # expired in 1970
        (b"s=MTI3LjAuMC4xOjM2MjAz", "127.0.0.1:36203"),  # an address alone
        (b"s=MTI3LjAuMC4xOjM2MjAzO3Vw", "127.0.0.1:36203"),  # gRFC A55: address;cluster
        (b"s=!!!", ""),
        (b"s=", ""),
        (b"t=Cg8xMjcuMC4wLjE6MzYyMDM=", ""),
    ],
)
def test_cookies_that_are_understood(cookie: bytes, wanted: str) -> None:
    head = get("up", "/", (b"cookie", cookie))
    assert CookieSession(SessionCookie("s")).address(head, 1795266300.0) == wanted


@pytest.mark.parametrize(
    ("path", "asked", "applies"),
    [
        ("", "/x", True),
        ("/", "/x", True),
        ("/app", "/app", True),
        ("/app", "/app?x", True),
        ("/app", "/app/x", True),
        ("/app/", "/app/x", True),
        ("/app", "/apple", False),
        ("/app", "/", False),
    ],
)
def test_the_path_of_a_cookie(path: str, asked: str, applies: bool) -> None:
    assert CookieSession(SessionCookie("s", path)).applies(get("up", asked)) == applies


def test_ends_of_bodies_are_heard_of_through_every_action() -> None:
    made = sticky(HEADER, internal_redirect=FOLLOWS, request_mirror_policies=(RequestMirrorPolicy("shadow"),))
    player = Player(made, get("up"))
    started(player)
    assert isinstance(player.responds(200, 1.0), Commit)
    assert held(made) != {}
    assert player.send(BodyEnd(2.0, Failure.RESET)) == ENDED
    assert held(made) == {}
    assert made.state.cluster("up").stats["upstream_rq_rx_reset"].value == 1
