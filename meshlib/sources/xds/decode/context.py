"""What one decode carries along: the resource's name for messages, and the findings so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib.model.report import Issue

NOT_APPLIED = "not applied in this version"


@dataclass(frozen=True, slots=True)
class Fields:
    """What a decoder does with the fields of one message type; every other field that is set is reported.

    `honoured` ones reach the model (or are checked). `harmless` ones need no report, each with its reason.
    `instead` says for fields that are left out what happens in their place.
    """

    honoured: frozenset[str]
    harmless: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)


def fields(
    *honoured: str, harmless: Mapping[str, str] | None = None, instead: Mapping[str, str] | None = None
) -> Fields:
    """Shorthand for `Fields`."""
    return Fields(frozenset(honoured), harmless or {}, instead or {})


NOTHING = fields()


def join(path: str, name: str) -> str:
    """The path of a field inside the message at `path`."""
    return f"{path}.{name}" if path else name


class Context:
    """Collects issues of the resource `resource` (type and name). `plugins` are the cluster specifiers that the routes
    of the route configuration being decoded may name.
    """

    __slots__ = ("issues", "plugins", "resource")

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.issues: list[Issue] = []
        self.plugins: Mapping[str, tuple[Any, str]] = {}

    def degraded(self, path: str, reason: str, fix: str = "") -> None:
        """Report a part of the resource that is left out."""
        self.issues.append(Issue("degraded", self.resource, path, reason, fix))

    def check_fields(self, message: Any, path: str, known: Fields) -> None:
        """Report every field that is set and neither honoured nor harmless, so that nothing is ignored in silence."""
        for descriptor, _ in message.ListFields():
            name = descriptor.name
            if name not in known.honoured and name not in known.harmless:
                self.degraded(join(path, name), known.instead.get(name, NOT_APPLIED))


class UnsupportedError(Exception):
    """A part without which its parent must not be used at all (a matcher: leaving it out would match more).

    Raised and caught inside the decoders; the parent is dropped and reported.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
