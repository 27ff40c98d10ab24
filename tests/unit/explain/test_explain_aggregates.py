"""Explain of calls to aggregate clusters."""

from typing import Any

from meshlib.explain import Explainer
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.sources.static import static_snapshot


def leaf(name: str, host: str, health: Any) -> Cluster:
    group = LocalityLbEndpoints((LbEndpoint(Address(host, 80), health_status=health),))
    return Cluster(name, load_assignment=ClusterLoadAssignment(name, (group,)), healthy_panic_threshold=0.0)


def test_the_row_of_priorities_and_the_endpoint_of_the_first_attempt() -> None:
    row = Cluster("row", "AGGREGATE", clusters=("a", "b"))
    clusters = {"a": leaf("a", "10.0.0.1", "UNHEALTHY"), "b": leaf("b", "10.0.0.2", "HEALTHY"), "row": row}
    found = Explainer(static_snapshot(clusters, routes={"shop": "row"}), seed=1).explain("GET", "http://shop/")
    assert found.endpoint == "10.0.0.2:80"
    assert found.balancing is not None
    assert [(entry["priority"], entry["healthy_load"]) for entry in found.balancing["priorities"]] == [(0, 0), (1, 100)]
    assert "priority 1 takes 100 % of the load" in found.chosen_because
