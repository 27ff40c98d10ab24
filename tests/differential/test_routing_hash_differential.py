"""Request hashes equal Envoy's, which shows a hash by its remainder: it can pick weighted clusters by hash policy."""

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from differential.routing_envoy import RoutingEnvoy
from differential.routing_generate import any_rewrites
from differential.routing_observed import Ask
from differential.routing_ours import head_of
from differential.routing_render import route
from differential.test_routing_differential import AGAINST_ENVOY
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import HashPolicy, Route, RouteAction
from meshlib.routing.hashing import compile_hash

SHARES = 251  # prime: every bit of the hash counts
NAMES = st.sampled_from(("x-a", "x-b", "x-none"))
KEYS = st.sampled_from(("q", "r", "none"))
VALUES = st.sampled_from(("1", "2", "abc", "", "a=b", '"q"', "%31", "user-17", "x" * 100))

policies = st.one_of(
    st.builds(HashPolicy, st.just("header"), NAMES, st.booleans(), st.one_of(st.none(), any_rewrites)),
    st.builds(HashPolicy, st.just("cookie"), KEYS, st.booleans()),
    st.builds(HashPolicy, st.just("query_parameter"), KEYS, st.booleans()),
    st.builds(HashPolicy, st.just("source_ip"), st.just(""), st.booleans()),
)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    cookies = draw(st.lists(st.tuples(KEYS, VALUES), max_size=2))
    if cookies:
        headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in cookies)))
    query = "&".join(f"{name}={value}" for name, value in draw(st.lists(st.tuples(KEYS, VALUES), max_size=2)))
    return Ask("GET", "a.test", "/" + ("?" + query if query else ""), tuple(headers))


@pytest.mark.timeout(600)
def test_hash_policies_hash_as_in_envoy(routing_envoy: RoutingEnvoy) -> None:
    seen: set[int] = set()

    @settings(AGAINST_ENVOY, max_examples=300)
    @given(st.lists(policies, min_size=1, max_size=4), st.lists(asks(), min_size=10, max_size=10))
    def same(hash_policies: list[HashPolicy], requests: list[Ask]) -> None:
        hasher = compile_hash(hash_policies)
        assert hasher is not None
        routing_envoy.push(_showing_hashes(hash_policies))
        for ask in requests:
            ours = hasher(head_of(ask), "127.0.0.1")
            theirs = dict(routing_envoy.ask(ask).headers)["x-share"]
            note(f"{ask}: {ours}, Envoy: {theirs}")
            if ours is not None:  # without a hash Envoy picks at random
                seen.add(ours.hash)
                assert ours.hash % SHARES == int(theirs)

    same()
    assert len(seen) > 50  # the hashes compared were not always the same few


def _showing_hashes(hash_policies: list[HashPolicy]) -> dict[str, object]:
    action = RouteAction("c0", timeout=None, hash_policies=tuple(hash_policies))
    entry = route(Route(RouteMatch(PathMatcher("prefix", "/")), action))
    del entry["route"]["cluster"]
    shares = [
        {
            "name": "c0",
            "weight": 1,
            "response_headers_to_add": [{"header": {"key": "x-share", "value": str(number)}}],
        }
        for number in range(SHARES)
    ]
    entry["route"]["weighted_clusters"] = {"clusters": shares, "use_hash_policy": True}
    return {"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [entry]}]}
