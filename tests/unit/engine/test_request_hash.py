"""The hash of a call: of the request the endpoint sees; a cookie is made where the hash decides, and only there."""

from __future__ import annotations

import pytest

from meshlib.context import CallHead, call_metadata
from meshlib.engine.commands import Commit, Start
from meshlib.model.cluster import Cluster
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.lb import LbPolicy, Maglev, RingHash, RoundRobin
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import HashPolicy, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, Dice, Player, runtime_of

ANYTHING = RouteMatch(PathMatcher("prefix", "/"))
COOKIE = HashPolicy("cookie", "user", ttl=100.5, path="/p", attributes=(("SameSite", "Strict"), ("Secure", "")))


def player(policy: HashPolicy, lb_policy: LbPolicy, *headers: tuple[bytes, bytes], number: float = 0.5) -> Player:
    mutations = HeaderMutations((HeaderValueOption("x-tier", "gold"),))
    route = Route(ANYTHING, RouteAction("payments", hash_policies=(policy,)), request_headers=mutations)
    config = RouteConfiguration("routes", (VirtualHost("h", ("*",), (route,)),))
    plain = static_cluster("payments", ADDRESSES)
    cluster = Cluster("payments", load_assignment=plain.load_assignment, lb_policy=lb_policy)
    snapshot = Snapshot(routes={"routes": config}, clusters={"payments": cluster})
    return Player(runtime_of(snapshot, rng=Dice(number)), CallHead("GET", "http", "payments", "/", headers))


@pytest.mark.parametrize("lb_policy", [RingHash(), Maglev()])
def test_a_cookie_is_made_with_its_attributes_where_the_hash_decides(lb_policy: LbPolicy) -> None:
    calls = player(COOKIE, lb_policy)
    end = calls.responds(200, 1.0)
    assert isinstance(end, Commit)
    assert end.headers is not None
    ((name, value),) = end.headers
    assert name == b"set-cookie"
    assert value == b'user="8000000000000000"; Max-Age=100; Path=/p; SameSite=Strict; Secure; HttpOnly'
    calls.body_ends(2.0)


def test_no_cookie_is_made_where_nothing_asks_for_the_hash() -> None:
    calls = player(COOKIE, RoundRobin())
    end = calls.responds(200, 1.0)
    assert isinstance(end, Commit)
    assert end.headers is None
    calls.body_ends(2.0)


def test_the_hash_sees_what_the_route_has_added() -> None:
    """Without the header every call would go where chance says."""
    chosen = set()
    for number in range(10):
        first = player(HashPolicy("header", "x-tier"), RingHash(), number=number / 10).last
        assert isinstance(first, Start)
        chosen.add(first.host.address)
    assert len(chosen) == 1


def test_the_hash_sees_what_the_call_carries() -> None:
    """Of the request with the header added: what the call carries goes with it."""
    chosen = {}
    for tenant in ("a", "b", "c", "d", "e", "f", "g", "h"):
        with call_metadata(filter_state={"tenant": tenant}):
            starts = [player(HashPolicy("filter_state", "tenant"), RingHash(), number=n / 10).last for n in range(10)]
        (chosen[tenant],) = {start.host.address for start in starts if isinstance(start, Start)}
    assert len(set(chosen.values())) > 1
