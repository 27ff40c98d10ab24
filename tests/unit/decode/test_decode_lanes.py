"""The metadata of a cluster that says lanes and nearness, and everything that can be wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster as Message
from google.protobuf.json_format import ParseDict

from meshlib.model.cluster import Cluster
from meshlib.model.lanes import Lane, LaneGroup, LaneRamp, Nearby
from meshlib.model.report import ResourceError
from meshlib.model.route import HashPolicy
from meshlib.sources.xds.decode import decode_message


def decoded(**namespaces: Any) -> Cluster:
    names = {"lanes": "meshlib.lanes", "nearby": "meshlib.nearby"}
    metadata = {"filter_metadata": {names[name]: value for name, value in namespaces.items()}}
    found = decode_message(ParseDict({"name": "payments", "metadata": metadata}, Message())).resource
    assert isinstance(found, Cluster)
    return found


def test_a_group_in_full() -> None:
    lanes = [
        {
            "name": "gray",
            "match": [{"headers": [{"name": "x-tag", "string_match": {"exact": "beta"}}]}, {"path": "/x"}],
            "share": 10,
            "by": {"header": "X-User"},
            "ramp": {"start": "2026-11-21T12:00:00Z", "seconds": 600, "curvature": 2},
        },
        {"name": "blue"},
    ]
    group = decoded(lanes={"group": "shop", "label": "colour", "fallback": "STRICT", "lanes": lanes}).lanes
    assert group is not None
    assert (group.name, group.label, group.strict) == ("shop", "colour", True)
    gray, blue = group.lanes
    assert [match.path.value for match in gray.matches] == ["/", "/x"]
    assert (gray.share, gray.by) == (10.0, (HashPolicy("header", "x-user"),))
    assert gray.ramp == LaneRamp(1795262400.0, 600.0, 2.0)
    assert blue == Lane("blue")


def test_defaults() -> None:
    found = decoded(lanes={"group": "shop"}, nearby={})
    assert found.lanes == LaneGroup("shop", "lane", strict=False)
    assert found.nearby == Nearby(level=1, max_level=3, strict=False)
    assert decoded().lanes is decoded().nearby is None


@pytest.mark.parametrize(
    "group, path, reason",
    [
        ({}, ".group", "is missing"),
        ({"group": "a/b"}, ".group", "may hold only letters"),
        ({"group": "a", "fallback": "MAYBE"}, ".fallback", "must be PERMISSIVE or STRICT"),
        ({"group": "a", "colour": 1}, ".colour", "is not known; valid are group"),
        ({"group": "a", "lanes": {}}, ".lanes", "must be a list"),
        ({"group": "a", "lanes": [{}]}, ".lanes[0].name", "is missing"),
        ({"group": "a", "lanes": [{"name": "x"}, {"name": "x"}]}, ".lanes", "two lanes have the same name"),
        ({"group": "a", "lanes": [{"name": "x", "share": 101}]}, ".lanes[0].share", "must be a number, 0 to 100"),
        ({"group": "a", "lanes": [{"name": "x", "by": {}}]}, ".lanes[0].by", "must say one of header"),
        ({"group": "a", "lanes": [{"name": "x", "by": {"source_ip": 1}}]}, ".lanes[0].by.source_ip", "must be true"),
        ({"group": "a", "lanes": [{"name": "x", "ramp": {"start": "noon"}}]}, ".ramp.start", "is no time like"),
        ({"group": "a", "lanes": [{"name": "x", "ramp": {"start": 1}}]}, ".ramp.seconds", "must be a number"),
        ({"group": "a", "lanes": [{"name": "x", "match": [{"headrs": []}]}]}, ".match[0]", "is no RouteMatch"),
        ({"group": "a", "lanes": [{"name": "x", "match": [{"safe_regex": {"regex": "("}}]}]}, "", ""),
    ],
)
def test_what_is_wrong_is_named(group: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(ResourceError) as error:
        decoded(lanes=group)
    assert path in error.value.path
    assert reason in error.value.reason


@pytest.mark.parametrize(
    "rule, reason",
    [
        ({"level": "planet"}, "must be one of sub_zone, zone, region, all"),
        ({"level": "region", "max_level": "zone"}, "must not be nearer than level"),
        ({"strict": "yes"}, "must be true or false"),
    ],
)
def test_what_is_wrong_with_nearness_is_named(rule: dict[str, Any], reason: str) -> None:
    with pytest.raises(ResourceError, match=reason):
        decoded(nearby=rule)
