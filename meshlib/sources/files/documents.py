"""A document → its resources: a bootstrap, typed resources, resources of an unmistakable shape, lists, Istio."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from meshlib.model.report import Issue
from meshlib.model.zones import Local
from meshlib.sources.files import bootstrap, kubernetes
from meshlib.sources.files.located import FieldPath, json_name
from meshlib.sources.files.messages import to_message
from meshlib.sources.files.resources import IstioDocument, LoadedResource, Origin
from meshlib.sources.files.schema import Problem, unknown_type
from meshlib.sources.files.type_registry import (
    ASSIGNMENT,
    BOOTSTRAP,
    CLUSTER,
    DISCOVERY_RESPONSE,
    LISTENER,
    ROUTE_CONFIGURATION,
    RUNTIME,
    SCOPED_ROUTE_CONFIGURATION,
    message_class,
    short_name,
)

Item = LoadedResource | IstioDocument | Issue | Local

RESOURCE_TYPES = (LISTENER, ROUTE_CONFIGURATION, CLUSTER, ASSIGNMENT, SCOPED_ROUTE_CONFIGURATION, RUNTIME)
_RESOURCE_WRAPPER = "envoy.service.discovery.v3.Resource"

# Keys that only one resource type has, in any spelling; the first match decides.
_SHAPES = (
    ({"virtualhosts"}, ROUTE_CONFIGURATION),
    ({"filterchains"}, LISTENER),
    ({"apilistener"}, LISTENER),
    ({"clustername", "endpoints"}, ASSIGNMENT),
    ({"name", "loadassignment"}, CLUSTER),
    ({"name", "connecttimeout"}, CLUSTER),
    ({"name", "lbpolicy"}, CLUSTER),
    ({"name", "edsclusterconfig"}, CLUSTER),
    ({"name", "circuitbreakers"}, CLUSTER),
    ({"name", "outlierdetection"}, CLUSTER),
)
_BOOTSTRAP_KEYS = frozenset(("staticresources", "dynamicresources", "layeredruntime"))
_ALL_KEYS = ("static_resources", "layered_runtime", "resources", "virtual_hosts", "filter_chains", "api_listener",
             "endpoints", "load_assignment", "apiVersion", "@type")  # fmt: skip


def read_document(value: Any, origin: Origin) -> Iterator[Item]:
    """The resources of one document, and the issues of those that cannot be used."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from read_document(item, origin.at(index))
        return
    if not isinstance(value, dict):
        yield _not_recognised(value, origin)
        return
    keys = {json_name(str(key)) for key in value}
    if "apiVersion" in value and "kind" in value:
        yield from kubernetes.read_object(value, origin)
    elif "@type" in value:
        yield from _read_typed(value, origin)
    elif isinstance(value.get("resources"), list):
        yield from _read_list(value, origin)
    elif keys & _BOOTSTRAP_KEYS:
        yield from _read_bootstrap(value, origin)
    else:
        type_name = next((name for needed, name in _SHAPES if needed <= keys), None)
        yield from _read_resource(value, type_name, origin) if type_name else (_not_recognised(value, origin),)


def _read_typed(value: dict[str, Any], origin: Origin) -> Iterator[Item]:
    url = value["@type"]
    type_name = url.rpartition("/")[2] if isinstance(url, str) else ""
    content = _without_type(value)
    if type_name == DISCOVERY_RESPONSE:
        yield from _read_list(content, origin)
    elif type_name == _RESOURCE_WRAPPER:
        yield from read_document(content.get("resource"), origin.at("resource"))
    elif type_name == BOOTSTRAP:
        yield from _read_bootstrap(content, origin)
    elif type_name in RESOURCE_TYPES:
        yield from _read_resource(content, type_name, origin)
    else:
        yield origin.issue(_unused_type(str(url), type_name), "document")


def _unused_type(url: str, type_name: str) -> Problem:
    if message_class(type_name) is None:
        return Problem(("@type",), *_reason_and_fix(unknown_type(url, ())))
    used = ", ".join(short_name(name) for name in RESOURCE_TYPES)
    return Problem(("@type",), f"{type_name} is not used from files; {used} are", severity="degraded")


def _reason_and_fix(problem: Problem) -> tuple[str, str]:
    return problem.reason, problem.fix


def _read_list(value: dict[str, Any], origin: Origin) -> Iterator[Item]:
    frame = {key: item for key, item in value.items() if key != "resources"}
    _, problems = to_message(frame, DISCOVERY_RESPONSE)
    yield from (origin.issue(problem, "document") for problem in problems)
    for index, item in enumerate(value.get("resources") or ()):
        yield from read_document(item, origin.at("resources", index))


def _read_bootstrap(value: Any, origin: Origin) -> Iterator[Item]:
    whole, problems = to_message(value, BOOTSTRAP)
    yield from (origin.issue(problem, "Bootstrap") for problem in problems)
    if whole is None:
        return
    yield from (origin.issue(problem, "Bootstrap") for problem in bootstrap.not_applied(whole))
    yield bootstrap.local(whole)
    for type_name, message, path in bootstrap.static_resources(whole):
        yield _resource(type_name, message, origin.at(*path), static=True)


def _read_resource(value: Any, type_name: str, origin: Origin) -> Iterator[Item]:
    message, problems = to_message(value, type_name)
    label = f"{short_name(type_name)} {_name_of(value)}".rstrip()
    yield from (origin.issue(problem, label) for problem in problems)
    if message is not None:
        yield _resource(type_name, message, origin)


def _resource(type_name: str, message: Message, origin: Origin, *, static: bool = False) -> Item:
    field = "cluster_name" if type_name == ASSIGNMENT else "name"
    name: str = getattr(message, field)
    if not name and type_name == LISTENER:
        name = bootstrap.name_listener(message)
    if not name:
        problem = Problem((), f"the {short_name(type_name)} has no {field}", f"give it a {field}")
        return origin.issue(problem, short_name(type_name))
    return LoadedResource(type_name, name, message, origin, static)


def _name_of(value: dict[str, Any]) -> str:
    for key in ("name", "cluster_name", "clusterName"):
        if isinstance(value.get(key), str):
            return str(value[key])
    return ""


def _without_type(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != "@type"}


def _not_recognised(value: Any, origin: Origin) -> Issue:
    path: FieldPath = ()
    fix = 'give it "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, or static_resources, or an Istio kind'
    if isinstance(value, dict):
        for key in value:
            near = difflib.get_close_matches(str(key), _ALL_KEYS, 1, 0.8)
            if near and near[0] != key:
                path, fix = (str(key),), f"did you mean {near[0]!r}?"
                break
        shown = f"a mapping of {', '.join(map(str, list(value)[:6]))}"
    else:
        shown = "a list" if isinstance(value, list) else f"{value!r:.60}"
    return origin.issue(Problem(path, f"{shown} is no configuration that is known", fix), "document")
