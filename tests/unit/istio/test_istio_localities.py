"""Priorities and weights of localities for one caller. Facts: Istio's locality load balancing."""

from typing import Any

import pytest

from meshlib.sources.istio.caller import Caller, caller_of
from meshlib.sources.istio.localities import Group, groups_of, is_weighted, placed
from meshlib.sources.istio.workload_entry import workload_of
from meshlib.sources.xds.node import Locality, Node, sidecar_node

Json = dict[str, Any]
PLACES = ("eu/a/1", "eu/a/2", "eu/b", "us/x", "asia/y")


def node(locality: str = "", labels: dict[str, str] | None = None) -> Node:
    region, zone, sub_zone = (*locality.split("/"), "", "")[:3]
    return sidecar_node(ip="10.0.0.1", pod="p", namespace="default", metadata={"LABELS": labels or {}},
                        locality=Locality(region, zone, sub_zone))  # fmt: skip


def groups(*entries: Json) -> list[Group]:
    listed = entries or tuple({"address": f"10.0.0.{index}", "locality": place} for index, place in enumerate(PLACES))
    return groups_of((workload_of(entry, "default"), 80) for entry in listed)


def priorities(found: list[Group]) -> dict[str, int]:
    return {group.locality: group.priority for group in found}


def from_eu(balancer: Json, *, fails_over: bool = True) -> list[Group]:
    return placed(groups(), balancer, caller_of(node("eu/a/1")), fails_over=fails_over)


def test_the_nearest_locality_is_first_once_there_is_outlier_detection() -> None:
    assert priorities(from_eu({})) == {"eu/a/1": 0, "eu/a/2": 1, "eu/b": 2, "us/x": 3, "asia/y": 3}
    assert set(priorities(from_eu({}, fails_over=False)).values()) == {0}
    assert set(priorities(from_eu({"localityLbSetting": {"enabled": False}})).values()) == {0}


def test_without_gaps_a_caller_elsewhere_has_all_alike() -> None:
    found = placed(groups(), {}, caller_of(node("africa")), fails_over=True)
    assert set(priorities(found).values()) == {0}


def test_a_region_fails_over_where_it_is_told_to() -> None:
    found = from_eu({"localityLbSetting": {"failover": [{"from": "eu", "to": "asia"}]}})
    assert priorities(found) == {"eu/a/1": 0, "eu/a/2": 1, "eu/b": 2, "asia/y": 3, "us/x": 4}


def test_labels_decide_in_their_order_and_divide_a_locality() -> None:
    caller = caller_of(node("eu/a", {"app": "a", "version": "v1"}))
    entries = [{"address": f"10.0.0.{index}", "locality": "eu/a", "labels": labels, "weight": index + 1}
               for index, labels in enumerate(({"app": "a", "version": "v1"}, {"app": "a", "version": "v2"},
                                               {"app": "b", "version": "v1"}))]  # fmt: skip
    wanted = {"localityLbSetting": {"failoverPriority": ["app", "version"]}}
    found = placed(groups(*entries), wanted, caller, fails_over=True)
    assert [(group.priority, group.weight) for group in found] == [(0, 1), (1, 2), (2, 3)]
    overridden = {"localityLbSetting": {"failoverPriority": ["version=v2"]}}
    found = placed(groups(*entries), overridden, caller, fails_over=True)
    assert [[workload.address for workload, _ in group.members] for group in found] == [
        ["10.0.0.1"],
        ["10.0.0.0", "10.0.0.2"],
    ]


def test_another_network_comes_after_every_other_label() -> None:
    labels = {"app": "a"}
    caller = Caller(labels=(("app", "a"), ("topology.istio.io/network", "one")))
    entries = [{"address": "10.0.0.1", "labels": labels, "network": "two"}, {"address": "10.0.0.2", "network": "one"}]
    wanted = {"localityLbSetting": {"failoverPriority": ["topology.istio.io/network", "app"]}}
    found = placed(groups(*entries), wanted, caller, fails_over=True)
    assert [[workload.address for workload, _ in group.members] for group in found] == [["10.0.0.2"], ["10.0.0.1"]]


def test_weights_are_distributed_and_what_is_not_named_gets_nothing() -> None:
    rules = [{"from": "us/*", "to": {"us": 100}}, {"from": "eu/*", "to": {"eu/a/*": 80, "us": 20}}]
    found = from_eu({"localityLbSetting": {"distribute": rules}}, fails_over=False)
    assert {group.locality: group.weight for group in found if group.members} == {
        "eu/a/1": 40,
        "eu/a/2": 40,
        "us/x": 20,
    }
    assert set(priorities(found).values()) == {0}


def test_zone_aware_keeps_other_regions_for_later() -> None:
    found = from_eu({"zoneAwareLbSetting": {"failover": [{"from": "eu", "to": "asia"}]}}, fails_over=False)
    assert priorities(found) == {"eu/a/1": 0, "eu/a/2": 0, "eu/b": 0, "asia/y": 1, "us/x": 2}
    assert set(priorities(from_eu({"zoneAwareLbSetting": {"enabled": False}})).values()) == {0}


@pytest.mark.parametrize(
    "settings, fails_over, expected",
    [
        ({}, True, False),
        ({"failover": [{}]}, True, True),
        ({"failover": [{}]}, False, False),
        ({"failoverPriority": ["app"]}, True, True),
        ({"distribute": [{}]}, False, True),
        ({"distribute": [{}], "enabled": False}, True, False),
    ],
)
def test_localities_are_weighted_where_something_is_said_of_them(
    settings: Json, fails_over: bool, expected: bool
) -> None:
    assert is_weighted({"localityLbSetting": settings}, fails_over=fails_over) is expected


def test_a_caller_is_read_from_a_node() -> None:
    found = caller_of(node("eu/a", {"app": "shop"}))
    assert (found.namespace, found.locality) == ("default", "eu/a")
    assert found.has({"app": "shop", "topology.kubernetes.io/zone": "a"})
    assert not found.has({"app": "other"})
    assert caller_of(node("eu", {"istio-locality": "us.x"})).locality == "us/x"
    assert caller_of(None) == Caller()
