"""Why an endpoint was chosen, by the words of each policy and of the request that asks for one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshlib.explain import Explainer
from meshlib.model.cluster import Cluster
from meshlib.model.lb import (
    LbPolicy,
    LeastRequest,
    Maglev,
    OverrideHost,
    OverrideHostSource,
    PeakEwma,
    PickFirst,
    Random,
    RingHash,
    RoundRobin,
)
from meshlib.sources.static import static_snapshot
from parts.balancing import assignment, endpoint, group


def explained(cluster: Cluster, *headers: tuple[str, str]) -> tuple[str | None, str]:
    snapshot = static_snapshot({"up": ["10.9.9.9:1"]})
    snapshot = replace(snapshot, clusters={"up": cluster})
    found = Explainer(snapshot, seed=1).explain("GET", "http://up/", list(headers))
    return found.endpoint, found.chosen_because


@pytest.mark.parametrize(
    "policy,words",
    [
        (RoundRobin(), "its turn"),
        (LeastRequest(), "the fewest active requests of 2 drawn"),
        (LeastRequest(full_scan=True), "no other of 2 has fewer active requests"),
        (RingHash(), "a random place of the ring: the request has no hash"),
        (Maglev(), "a random place of the Maglev table: the request has no hash"),
        (Random(), "drawn at random of 2"),
        (PickFirst(), "the first that can be reached"),
        (PeakEwma(), "the shorter expected wait of two drawn"),
    ],
)
def test_the_words_of_each_policy(policy: LbPolicy, words: str) -> None:
    two = assignment(group([endpoint(1), endpoint(2)]))
    assert explained(Cluster("up", lb_policy=policy, load_assignment=two))[1] == words


def test_alone_and_in_panic() -> None:
    one = assignment(group([endpoint(1), endpoint(2, health="UNHEALTHY"), endpoint(3)]))
    assert explained(Cluster("up", load_assignment=one))[1] == "its turn"
    alone = assignment(group([endpoint(1), endpoint(2, health="DEGRADED")]))
    assert explained(Cluster("up", load_assignment=alone))[1] == "the only healthy endpoint"
    panic = assignment(group([endpoint(n, health="UNHEALTHY") for n in (1, 2)]))
    assert "in panic, so health does not count" in explained(Cluster("up", load_assignment=panic))[1]


def test_what_the_request_asks_for_is_chosen_whatever_its_health() -> None:
    hosts = assignment(group([endpoint(1), endpoint(2, health="UNHEALTHY"), endpoint(3)]))
    asked = OverrideHost((OverrideHostSource(header="x-to"),))
    cluster = Cluster("up", load_assignment=hosts, override_host=asked)
    assert explained(cluster, ("x-to", "10.0.0.2:80")) == (
        "10.0.0.2:80",
        "the request names it (override host), whatever its health",
    )
    assert explained(cluster, ("x-to", "10.0.0.77:80"))[1] == "its turn"
