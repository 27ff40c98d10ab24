"""Request hashes equal Envoy's, which shows a hash by its remainder: it can pick weighted clusters by hash policy."""

import random
from collections.abc import Sequence

import pytest

from differential import draws as st
from differential.routing_envoy import RoutingEnvoy
from differential.routing_generate import any_rewrites
from differential.routing_observed import Ask
from differential.routing_ours import head_of
from differential.routing_render import route
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import HashPolicy, Route, RouteAction
from meshlib.routing.hashing import compile_hash

SHARES = 251  # prime: every bit of the hash counts
PER_PUSH = 20
NAMES = st.sampled_from(("x-a", "x-b", "x-none"))
KEYS = st.sampled_from(("q", "r", "none"))
VALUES = st.sampled_from(("1", "2", "abc", "", "a=b", '"q"', "%31", "user-17", "x" * 100))

policies = st.one_of(
    st.builds(HashPolicy, st.just("header"), NAMES, st.booleans(), st.one_of(st.none(), any_rewrites)),
    st.builds(HashPolicy, st.just("cookie"), KEYS, st.booleans()),
    st.builds(HashPolicy, st.just("query_parameter"), KEYS, st.booleans()),
    st.builds(HashPolicy, st.just("source_ip"), st.just(""), st.booleans()),
)
rules = st.lists(policies, min_size=1, max_size=4)


@st.composite
def asks(draw: st.DrawFn, authority: str) -> Ask:
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    cookies = draw(st.lists(st.tuples(KEYS, VALUES), max_size=2))
    if cookies:
        headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in cookies)))
    query = "&".join(f"{name}={value}" for name, value in draw(st.lists(st.tuples(KEYS, VALUES), max_size=2)))
    return Ask("GET", authority, "/" + ("?" + query if query else ""), tuple(headers))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "pushes"), [(1, 20), pytest.param(2, 500, marks=pytest.mark.slow)])
def test_hash_policies_hash_as_in_envoy(seed: int, pushes: int, routing_envoy: RoutingEnvoy) -> None:
    rng = random.Random(seed)
    seen: set[int] = set()
    compared = 0
    for _ in range(pushes):
        drawn = {f"n{number}.test": rules.by(rng) for number in range(PER_PUSH)}
        routing_envoy.push({"virtual_hosts": [showing_hashes(*item) for item in drawn.items()]})
        for domain, hash_policies in drawn.items():
            hasher = compile_hash(hash_policies)
            assert hasher is not None
            for ask in st.lists(asks(domain), 10, 10).by(rng):
                ours = hasher(head_of(ask), "127.0.0.1")
                theirs = dict(routing_envoy.ask(ask).headers)["x-share"]
                if ours is not None:  # without a hash Envoy picks at random
                    seen.add(ours.hash)
                    compared += 1
                    assert ours.hash % SHARES == int(theirs), f"{ask}: {ours}, Envoy {theirs}: {hash_policies}"
    assert compared > pushes * PER_PUSH * 5
    assert len(seen) > 300  # the hashes compared were not always the same few


def showing_hashes(domain: str, hash_policies: Sequence[HashPolicy]) -> dict[str, object]:
    """A virtual host whose answers say in `x-share` what the hash leaves, divided by `SHARES`."""
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
    return {"name": domain, "domains": [domain], "routes": [entry]}
