"""Kubernetes-style objects in files: Istio's networking kinds and our own are used, others are named as not used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.report import Issue
from meshlib.sources.files.resources import IstioDocument, MeshDocument, Origin
from meshlib.sources.files.schema import Problem

GROUP = "networking.istio.io"
OUR_GROUP = "meshlib.dev"
OUR_KINDS = ("LaneGroup", "NearbyRouting")
KINDS = ("VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry", "Sidecar")
DEFAULT_NAMESPACE = "default"


def read_object(value: dict[str, Any], origin: Origin) -> Iterator[IstioDocument | Issue]:
    """The Istio documents of an object or of a `List`."""
    kind, version = str(value["kind"]), str(value["apiVersion"])
    if kind.endswith("List") and isinstance(value.get("items"), list):
        yield from _read_items(value["items"], origin)
        return
    metadata = value.get("metadata") if isinstance(value.get("metadata"), dict) else {}
    name, namespace = _text(metadata, "name"), _text(metadata, "namespace") or DEFAULT_NAMESPACE
    label = f"{kind} {namespace}/{name}"
    group = version.partition("/")[0]
    if kind not in {GROUP: KINDS, OUR_GROUP: OUR_KINDS}.get(group, ()):
        used = f"{', '.join(KINDS)} of {GROUP} and {', '.join(OUR_KINDS)} of {OUR_GROUP}"
        reason = f"{kind} ({version}) is not used from files; {used} are"
        yield origin.issue(Problem(("kind",), reason, severity="degraded"), label)
    elif not name:
        yield origin.issue(Problem(("metadata",), "the object has no metadata.name"), kind)
    elif not isinstance(value.get("spec"), dict):
        yield origin.issue(Problem(("spec",), "the object has no spec"), label)
    else:
        created = _text(metadata, "creationTimestamp")
        document = MeshDocument if group == OUR_GROUP else IstioDocument
        yield document(kind, name, namespace, value["spec"], origin.at("spec"), _labels(metadata), created)


def _read_items(items: list[Any], origin: Origin) -> Iterator[IstioDocument | Issue]:
    for index, item in enumerate(items):
        inside = origin.at("items", index)
        if isinstance(item, dict) and "kind" in item and "apiVersion" in item:
            yield from read_object(item, inside)
        else:
            yield inside.issue(Problem((), "an item of a List needs apiVersion and kind"), "List")


def _labels(metadata: Any) -> dict[str, str]:
    found = metadata.get("labels")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _text(metadata: Any, key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
