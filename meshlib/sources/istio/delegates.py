"""Delegation: a route of one VirtualService hands its requests to the routes of another (istiod: `virtualservice.go`).

A delegate's route stays in the part of the requests that the root matches: what a match of both says has to agree, and
a route that could match others is left out. What the delegate does not say of a request it has from the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

_INHERITED = (
    *("rewrite", "directResponse", "timeout", "retries", "fault", "headers"),
    *("mirror", "mirrors", "mirrorPercent", "mirrorPercentage", "corsPolicy"),
)
_STRING_MATCHES = ("uri", "scheme", "method", "authority")
_MAPS = ("headers", "withoutHeaders", "queryParams")


def merged_routes(root: Json, delegate: tuple[Json, ...]) -> Iterator[Json]:
    """The delegate's routes as the root lets them be; those that conflict with it are left out."""
    for route in delegate:
        matches = merged_matches(root.get("match") or [], route.get("match") or [])
        if matches is not None:
            inherited = {key: root[key] for key in _INHERITED if root.get(key) is not None and route.get(key) is None}
            name = _joined(root.get("name", ""), route.get("name", ""))
            yield {**route, **inherited, "name": name, "match": matches}


def merged_matches(root: list[Json], leaf: list[Json]) -> list[Json] | None:
    """The matches of both; None when one of the delegate's lies in none of the root's."""
    if not root or not leaf:
        return root or leaf
    found: list[Json] = []
    for match in leaf:
        fitting = [_merged(each, match) for each in root if not conflict(each, match)]
        if not fitting:
            return None
        found += fitting
    return found


def conflict(root: Json, leaf: Json) -> bool:
    """Whether the delegate's match may take requests that the root's does not."""
    pairs = [(root.get(key), leaf.get(key)) for key in _STRING_MATCHES]
    for key in _MAPS:
        above = root.get(key) or {}
        pairs += [(above.get(name), rule) for name, rule in (leaf.get(key) or {}).items()]
    return (
        any(_strings_conflict(above, below) for above, below in pairs)
        or bool(root.get("ignoreUriCase")) != bool(leaf.get("ignoreUriCase"))
        or _numbers_conflict(root.get("port"), leaf.get("port"))
        or bool(root.get("sourceNamespace") and leaf.get("sourceNamespace") != root["sourceNamespace"])
        or any((root.get("sourceLabels") or {}).get(name, value) != value
               for name, value in (leaf.get("sourceLabels") or {}).items())
        or _gateways_conflict(root.get("gateways") or [], leaf.get("gateways") or [])
    )  # fmt: skip


def _merged(root: Json, leaf: Json) -> Json:
    out = {**leaf, "name": _joined(root.get("name", ""), leaf.get("name", ""))}
    for key in (*_STRING_MATCHES, "port", "sourceNamespace", "gateways", "statPrefix"):
        if not leaf.get(key) and root.get(key) is not None:
            out[key] = root[key]
    for key in (*_MAPS, "sourceLabels"):
        out[key] = {**(root.get(key) or {}), **(leaf.get(key) or {})}
    return out


def _strings_conflict(root: Mapping[str, str] | None, leaf: Mapping[str, str] | None) -> bool:
    if root is None or leaf is None:
        return False
    ours, theirs = _kinds(root), _kinds(leaf)
    if ("regex" in ours and theirs) or ("regex" in theirs and ours):
        return True
    if "exact" in ours:
        return theirs.get("exact") != ours["exact"]
    if "prefix" in ours and theirs:
        return not next(iter(theirs.values())).startswith(ours["prefix"])
    return True


def _kinds(rule: Mapping[str, str]) -> dict[str, str]:
    return {kind: value for kind, value in rule.items() if value}


def _numbers_conflict(root: int | None, leaf: int | None) -> bool:
    return bool(root and leaf and root != leaf)


def _gateways_conflict(root: list[str], leaf: list[str]) -> bool:
    return bool(root and leaf) and (len(root) < len(leaf) or not set(leaf) <= set(root))


def _joined(root: str, leaf: str) -> str:
    return f"{root}-{leaf}" if root and leaf else root or leaf
