"""What becomes of every field of Istio's resources, from the `Fields` each document is checked against."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.sources.istio import (
    destination_rule_fields,
    service_entry,
    sidecar,
    virtual_service_fields,
    workload_entry,
)
from meshlib.sources.istio.fields import Fields, Kind, ListOf, MapOf
from tables import markdown

SPECS = (
    virtual_service_fields.SPEC,
    destination_rule_fields.SPEC,
    service_entry.SPEC,
    workload_entry.SPEC,
    sidecar.SPEC,
)
_ELSEWHERE = {"endpoints": "WorkloadEntry"}
"""Fields whose message has a section of its own."""


def tables() -> str:
    """A section per resource, a row per field in it, by its path."""
    return "\n\n".join(f"### {spec.name}\n\n{_table(spec)}" for spec in SPECS)


def _table(spec: Fields) -> str:
    return markdown.table(("field", "state"), ((f"`{path}`", state) for path, state in _rows(spec, "")))


def _rows(message: Fields, prefix: str) -> Iterator[tuple[str, str]]:
    for name, kind in message.known.items():
        path = f"{prefix}{name}{_brackets(kind)}"
        inner = _message(kind)
        if inner is not None and inner.name == "StringMatch":
            yield path, f"taken: {markdown.code(inner.known)}"
        elif inner is not None and name not in {*_ELSEWHERE, *message.partly} and not _is_repeated(path):
            yield from _rows(inner, f"{path}.")
        else:
            yield path, _state(message, name, path)
    for name, why in message.not_applied.items():
        yield f"{prefix}{name}", f"reported: {why}"
    for name in message.ignored:
        yield f"{prefix}{name}", "nothing to apply: a name for metrics or people only"


def _state(message: Fields, name: str, path: str) -> str:
    if name in message.partly:
        return f"taken; reported: {message.partly[name]}"
    if name in _ELSEWHERE:
        return f"taken, as of a {_ELSEWHERE[name]}"
    return "taken, with the fields of the trafficPolicy above" if _is_repeated(path) else "taken"


def _is_repeated(path: str) -> bool:
    """Whether what is inside has been listed: policies of subsets and ports are the destination's."""
    return path in {"subsets[].trafficPolicy", "trafficPolicy.portLevelSettings[]"}


def _brackets(kind: Kind) -> str:
    return "[]" if isinstance(kind, ListOf) else "{}" if isinstance(kind, MapOf) else ""


def _message(kind: Kind) -> Fields | None:
    while isinstance(kind, ListOf | MapOf):
        kind = kind.item
    return kind if isinstance(kind, Fields) else None
