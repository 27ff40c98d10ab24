"""Delegation: which of a delegate's routes a root takes, and what it gives them. Facts: istiod's merging rules."""

from typing import Any

import pytest

from meshlib.sources.istio.delegates import conflict, merged_matches, merged_routes

Json = dict[str, Any]


@pytest.mark.parametrize(
    "root, leaf, expected",
    [
        ({}, {}, False),
        ({"uri": {"prefix": "/a"}}, {}, False),
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, False),
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}, True),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/a/b"}}, False),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}, False),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/b"}}, True),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, True),
        ({"uri": {"regex": "/a.*"}}, {"uri": {"prefix": "/a"}}, True),
        ({"uri": {"prefix": "/a"}}, {"uri": {"regex": "/a.*"}}, True),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "GET"}}, False),
        ({"headers": {"h": {"exact": "1"}}}, {"headers": {"other": {"exact": "2"}}}, False),
        ({"headers": {"h": {"exact": "1"}}}, {"headers": {"h": {"exact": "2"}}}, True),
        ({"headers": {"h": {}}}, {"headers": {"h": {"exact": "2"}}}, True),
        ({"withoutHeaders": {"h": {"exact": "1"}}}, {"withoutHeaders": {"h": {"exact": "1"}}}, False),
        ({"queryParams": {"q": {"prefix": "a"}}}, {"queryParams": {"q": {"exact": "b"}}}, True),
        ({"ignoreUriCase": True}, {}, True),
        ({"port": 80}, {"port": 81}, True),
        ({"port": 80}, {}, False),
        ({"sourceNamespace": "a"}, {}, True),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "a"}, False),
        ({"sourceLabels": {"x": "1"}}, {"sourceLabels": {"x": "2"}}, True),
        ({"sourceLabels": {"x": "1"}}, {"sourceLabels": {"y": "2"}}, False),
        ({"gateways": ["a"]}, {"gateways": ["a", "b"]}, True),
        ({"gateways": ["a", "b"]}, {"gateways": ["b"]}, False),
    ],
)
def test_a_match_of_both_has_to_lie_within_the_root_s(root: Json, leaf: Json, expected: bool) -> None:
    assert conflict(root, leaf) is expected


def test_each_match_joins_each_of_the_root_s_that_it_fits() -> None:
    root = [{"name": "r", "uri": {"prefix": "/a"}, "headers": {"h": {"exact": "1"}}}, {"uri": {"prefix": "/b"}}]
    leaf = [{"name": "l", "uri": {"prefix": "/a/x"}, "headers": {"i": {"exact": "2"}}}, {"port": 80}]
    found = merged_matches(root, leaf)
    assert found is not None
    assert [(match["name"], match["uri"], match.get("port")) for match in found] == [
        ("r-l", {"prefix": "/a/x"}, None),
        ("r", {"prefix": "/a"}, 80),
        ("", {"prefix": "/b"}, 80),
    ]
    assert found[0]["headers"] == {"h": {"exact": "1"}, "i": {"exact": "2"}}


def test_a_route_with_one_match_outside_is_left_out() -> None:
    root: Json = {"match": [{"uri": {"prefix": "/a"}}]}
    inside, outside = {"uri": {"prefix": "/a/1"}}, {"uri": {"prefix": "/b"}}
    routes = ({"match": [inside, outside], "name": "left out"}, {"match": [inside], "name": "taken"})
    assert [route["name"] for route in merged_routes(root, routes)] == ["taken"]


def test_what_the_delegate_does_not_say_it_has_from_the_root() -> None:
    root: Json = {"name": "root", "timeout": "1s", "retries": {"attempts": 1}, "corsPolicy": {}, "match": []}
    (found,) = merged_routes(root, ({"name": "leaf", "timeout": "2s", "route": []},))
    assert found["name"] == "root-leaf"
    assert (found["timeout"], found["retries"], found["corsPolicy"]) == ("2s", {"attempts": 1}, {})
