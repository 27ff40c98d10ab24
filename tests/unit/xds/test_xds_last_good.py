"""One resource that makes no plan must not hold back the rest: its last good stays, or it is left out."""

from dataclasses import replace

import pytest

from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.last_good import with_last_good
from parts.xds_models import assignment, cluster, listener, routes

GOOD = Snapshot(
    listeners={"payments": listener("payments", "r1"), "orders": listener("orders", "r2")},
    routes={"r1": routes("r1", "c1"), "r2": routes("r2", "c2")},
    clusters={"c1": cluster("c1", "s1"), "c2": cluster("c2", "s2")},
    endpoints={"s1": assignment("s1"), "s2": assignment("s2")},
    version="1",
)
# The next one: r1 goes to another cluster and is refused, r2 has changed as well.
NEXT = replace(
    GOOD,
    routes={"r1": routes("r1", "c3"), "r2": routes("r2", "c2", "c3")},
    clusters={"c3": cluster("c3", "s3"), "c2": GOOD.clusters["c2"]},
    endpoints={"s3": assignment("s3"), "s2": GOOD.endpoints["s2"]},
    version="2",
)


def test_the_last_good_routes_come_back_with_what_they_need():
    found = with_last_good(NEXT, "RouteConfiguration r1", GOOD)
    assert found is not None
    assert found.routes == {"r1": GOOD.routes["r1"], "r2": NEXT.routes["r2"]}
    assert set(found.clusters) == {"c1", "c2", "c3"}
    assert found.endpoints["s1"] == GOOD.endpoints["s1"]
    assert found.version == "2"


def test_routes_without_a_last_good_are_left_out():
    found = with_last_good(NEXT, "RouteConfiguration r1", None)
    assert found is not None
    assert set(found.routes) == {"r2"}
    assert found.clusters == NEXT.clusters


def test_what_is_refused_again_is_left_out():
    """The last good need not compile for ever: a package may be gone, a limit in code may have changed."""
    first = with_last_good(NEXT, "RouteConfiguration r1", GOOD)
    assert first is not None
    second = with_last_good(first, "RouteConfiguration r1", GOOD)
    assert second is not None
    assert set(second.routes) == {"r2"}


def test_a_cluster_and_its_endpoints():
    changed = replace(
        NEXT, clusters={**NEXT.clusters, "c2": cluster("c2", "s9")}, endpoints={"s3": NEXT.endpoints["s3"]}
    )
    found = with_last_good(changed, "Cluster c2", GOOD)
    assert found is not None
    assert found.clusters["c2"] == GOOD.clusters["c2"]
    assert found.endpoints["s2"] == GOOD.endpoints["s2"]
    assert found.routes == NEXT.routes


def test_routes_inside_a_listener_stand_and_fall_with_it():
    def inline(cluster: str) -> Listener:
        return Listener("payments", (HttpConnectionManager(routes("inside", cluster)),), api=True)

    good = replace(GOOD, listeners={"payments": inline("c1")})
    bad = replace(NEXT, listeners={"payments": inline("c3"), "orders": NEXT.listeners["orders"]})
    found = with_last_good(bad, "RouteConfiguration inside", good)
    assert found is not None
    assert found.listeners == {"payments": good.listeners["payments"], "orders": NEXT.listeners["orders"]}
    assert "c1" in found.clusters


@pytest.mark.parametrize("refused", ["", "RouteConfiguration", "RouteConfiguration other", "Cluster c9", "Secret r1"])
def test_what_is_not_in_the_snapshot_cannot_be_left_out(refused: str):
    assert with_last_good(NEXT, refused, GOOD) is None
