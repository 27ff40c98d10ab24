"""`LaneGroup` and `NearbyRouting`: lanes and nearness in a few lines of YAML, written into the metadata of the clusters
they name. So they go wherever clusters go, over xDS too, and a data plane that does not know them ignores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from meshlib.model.report import Issue
from meshlib.sources.files.resources import LoadedResource, MeshDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.files.type_registry import CLUSTER
from meshlib.sources.istio.fields import (
    DURATION,
    FLAG,
    NUMBER,
    PERCENT,
    TEXT,
    Fields,
    ListOf,
    OneOf,
    check,
    seconds_of,
)
from meshlib.sources.istio.route_match import route_match
from meshlib.sources.istio.virtual_service_fields import HTTP_MATCH
from meshlib.sources.xds.decode.lanes import LANES, LEVELS, NEARBY

_BY = Fields(
    "by",
    {"header": TEXT, "cookie": TEXT, "queryParameter": TEXT, "sourceIp": FLAG},
    exclusive=("header", "cookie", "queryParameter", "sourceIp"),
)
_WARM_UP = Fields("warmUp", {"start": TEXT, "duration": DURATION, "curvature": NUMBER}, required=("start", "duration"))
_LANE = Fields(
    "a lane",
    {"name": TEXT, "match": ListOf(HTTP_MATCH), "share": PERCENT, "by": _BY, "warmUp": _WARM_UP},
    required=("name",),
)
_SERVICES = ListOf(TEXT)
SPECS = {
    "LaneGroup": Fields(
        "LaneGroup",
        {"services": _SERVICES, "label": TEXT, "fallback": OneOf(("PERMISSIVE", "STRICT")), "lanes": ListOf(_LANE)},
        required=("services",),
    ),
    "NearbyRouting": Fields(
        "NearbyRouting",
        {"services": _SERVICES, "level": OneOf(LEVELS), "maxLevel": OneOf(LEVELS), "strict": FLAG},
        required=("services",),
    ),
}
"""The kinds of `meshlib.dev` and their fields."""


def label(
    resources: Sequence[LoadedResource], documents: Iterable[MeshDocument]
) -> tuple[tuple[LoadedResource, ...], tuple[Issue, ...]]:
    """The resources with the documents' metadata on the clusters of their services, and what is wrong."""
    issues: list[Issue] = []
    found = {id(resource): resource for resource in resources}
    said: dict[tuple[int, str], MeshDocument] = {}
    for document in documents:
        problems = list(check(document.spec, SPECS[document.kind]))
        issues += [document.origin.issue(problem, document.label) for problem in problems]
        if any(problem.severity == "error" for problem in problems):
            continue
        namespace, value = _METADATA[document.kind](document)
        for index, service in enumerate(document.spec["services"]):
            meant = [resource for resource in resources if _is_meant(resource, service, document.namespace)]
            if not meant:
                issues.append(document.origin.issue(_nothing_meant(index, service, resources), document.label))
            firsts = [said.setdefault((id(resource), namespace), document) for resource in meant]
            for resource, first in zip(meant, firsts, strict=True):
                if first is document:
                    found[id(resource)] = _with_metadata(found[id(resource)], namespace, value)
            if other := next((first for first in firsts if first is not document), None):
                issues.append(document.origin.issue(_said_before(index, service, other), document.label))
    return tuple(found.values()), tuple(issues)


def _is_meant(resource: LoadedResource, service: str, namespace: str) -> bool:
    """A cluster of that name, or one that istiod would make for a host of that name (`outbound|80|v1|payments...`)."""
    if resource.type_name != CLUSTER:
        return False
    host = resource.name.split("|")[-1]
    return service in (resource.name, host) or host == f"{service}.{namespace}.svc.cluster.local"


def _nothing_meant(index: int, service: str, resources: Sequence[LoadedResource]) -> Problem:
    names = sorted({resource.name.split("|")[-1] for resource in resources if resource.type_name == CLUSTER})
    fix = f"there are {', '.join(names[:10])}" if names else ""
    return Problem(("services", index), f"no cluster is called {service!r}", fix)


def _said_before(index: int, service: str, first: MeshDocument) -> Problem:
    return Problem(("services", index), f"{service!r} is in {first.label} already, which counts", "a service is in one")


def _with_metadata(resource: LoadedResource, namespace: str, value: Mapping[str, Any]) -> LoadedResource:
    message: Any = type(resource.message)()
    message.CopyFrom(resource.message)
    message.metadata.filter_metadata[namespace].CopyFrom(ParseDict(dict(value), Struct()))
    return replace(resource, message=message)


def _lanes(document: MeshDocument) -> tuple[str, dict[str, Any]]:
    spec = document.spec
    given = {name: spec[name] for name in ("label", "fallback") if name in spec}
    return LANES, {"group": document.name, **given, "lanes": [dict(_lane(lane)) for lane in spec.get("lanes") or ()]}


def _lane(lane: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "name", lane["name"]
    if lane.get("match"):
        yield "match", [route_match(match) for match in lane["match"]]
    if "share" in lane:
        yield "share", lane["share"]
    if lane.get("by"):
        names = {"queryParameter": "query_parameter", "sourceIp": "source_ip"}
        yield "by", {names.get(name, name): value for name, value in lane["by"].items()}
    if warm_up := lane.get("warmUp"):
        ramp = {"start": warm_up["start"], "seconds": seconds_of(str(warm_up["duration"]))}
        yield "ramp", ramp | {name: warm_up[name] for name in ("curvature",) if name in warm_up}


def _nearness(document: MeshDocument) -> tuple[str, dict[str, Any]]:
    names = {"level": "level", "maxLevel": "max_level", "strict": "strict"}
    return NEARBY, {ours: document.spec[theirs] for theirs, ours in names.items() if theirs in document.spec}


_METADATA = {"LaneGroup": _lanes, "NearbyRouting": _nearness}
