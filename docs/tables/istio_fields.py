"""What becomes of every field of Istio's resources, from the `Fields` each document is checked against."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.sources.istio import destination_rule, service_entry, virtual_service
from meshlib.sources.istio.fields import Fields, Kind, ListOf, MapOf
from tables import markdown

SPECS = (virtual_service.SPEC, destination_rule.SPEC, service_entry.SPEC)


def tables() -> str:
    """A section per resource, a row per message in it."""
    return "\n\n".join(f"### {spec.name}\n\n{_table(spec)}" for spec in SPECS)


def _table(spec: Fields) -> str:
    rows = []
    for message in {each.name: each for each in _messages(spec)}.values():
        missing = "; ".join(f"`{name}`: {why}" for name, why in message.not_applied.items())
        rows.append((f"`{message.name}`", markdown.code(message.known), missing, markdown.code(message.ignored)))
    return markdown.table(("message", "taken", "reported, not applied", "of no consequence here"), rows)


def _messages(kind: Kind) -> Iterator[Fields]:
    if isinstance(kind, ListOf | MapOf):
        yield from _messages(kind.item)
    elif isinstance(kind, Fields):
        yield kind
        for inner in kind.known.values():
            yield from _messages(inner)
