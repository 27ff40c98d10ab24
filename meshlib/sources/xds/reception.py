"""Takes the resources of one response one by one: good ones are used, bad ones refused by name (gRFC A46)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from meshlib.sources.xds.cache import Rejection, ResourceCache
from meshlib.sources.xds.events import (
    Event,
    ResourceAliased,
    ResourceDoesNotExist,
    ResourceFailed,
    ResourceRejected,
    ResourceRemoved,
    ResourceUpdate,
)
from meshlib.sources.xds.resource_name import resource_name
from meshlib.sources.xds.subscriptions import Subscriptions
from meshlib.sources.xds.types import VIRTUAL_HOST, NamedError, WireResource, short_type

Accept = Callable[[str, str, bytes], "str | None"]
"""``accept(type_url, name, body)`` decodes; it returns None, or the reason to refuse, with the field path."""

_NOT_FOUND = 5
_MAX_ERRORS_IN_NACK = 32


@dataclass(slots=True)
class Reception:
    """What one response brought: events in order, the reasons to NACK it, and the names that were in it.

    `is_malformed`: something in it could not even be told by name, so what seems to be missing may be just that.
    """

    events: list[Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    is_malformed: bool = False

    def error_detail(self) -> str | None:
        """The text of the NACK, one line a bad resource, or None when everything was good."""
        if not self.errors:
            return None
        shown = self.errors[:_MAX_ERRORS_IN_NACK]
        hidden = len(self.errors) - len(shown)
        return "\n".join([*shown, f"and {hidden} more"] if hidden else shown)


@dataclass(slots=True)
class Receiver:
    """Checks what comes against the subscriptions and the owner's decoder, and keeps the cache."""

    subscriptions: Subscriptions
    cache: ResourceCache
    accept: Accept

    def take(self, type_url: str, resources: Iterable[WireResource], version: str, origin: int) -> Reception:
        """Take all resources of a response; ``version`` serves those that do not carry their own."""
        into = Reception()
        for index, resource in enumerate(resources):
            name = resource.name or resource_name(resource.body) or ""
            problem = _shape_problem(type_url, resource, name, into)
            if problem:
                into.is_malformed = True
                into.errors.append(f"{short_type(type_url)} resources[{index}] {name!r}: {problem}")
                continue
            into.present.add(name)
            into.present.update(resource.aliases)
            if resource.is_heartbeat:
                self._take_empty(type_url, name, resource, into)
                continue
            known_as = self.subscriptions.match(type_url, name, resource.aliases)
            for alias in [alias for alias in known_as if alias != name and name in known_as]:
                known_as.remove(alias)
                self._take_alias(type_url, name, alias, into)
            for known in known_as:
                self._take_one(type_url, known, resource, resource.version or version, origin, into)
        return into

    def _take_alias(self, type_url: str, name: str, alias: str, into: Reception) -> None:
        """A resource kept under its own name has no copy under another, which would grow stale."""
        entry = self.cache.entry(type_url, alias)
        if entry.alias_of != name:
            self.cache.mark_alias(type_url, alias, name)
            into.events.append(ResourceAliased(type_url, name, alias))

    def _take_empty(self, type_url: str, name: str, resource: WireResource, into: Reception) -> None:
        """A virtual host without content says that there is none of that name (VHDS); of other types, "still valid"."""
        if type_url == VIRTUAL_HOST:
            for unknown in dict.fromkeys((name, *resource.aliases)):
                entry = self.cache.get(type_url, unknown)
                if entry is None or entry.body is None:
                    into.events += self.remove(type_url, unknown)

    def _take_one(
        self, type_url: str, name: str, resource: WireResource, version: str, origin: int, into: Reception
    ) -> None:
        entry = self.cache.entry(type_url, name)
        is_new = entry.body != resource.body
        reason = self.accept(type_url, name, resource.body) if is_new else None
        if reason is not None:
            entry.rejection = Rejection(version, reason)
            into.errors.append(f"{short_type(type_url)} {name!r}: {reason}")
            into.events.append(ResourceRejected(type_url, name, version, reason, entry.body is not None))
            return
        entry.body, entry.version, entry.origin = resource.body, version, origin
        entry.is_missing, entry.rejection = False, None
        if is_new:
            into.events.append(ResourceUpdate(type_url, name, version, resource.body))

    def remove(self, type_url: str, name: str) -> list[Event]:
        """A resource the control plane says is gone, or never was."""
        entry = self.cache.get(type_url, name)
        by_name = name in self.subscriptions.names(type_url)
        had_body = entry is not None and (entry.body is not None or bool(entry.alias_of))
        was_missing = entry is not None and entry.is_missing
        if by_name:
            self.cache.mark_missing(type_url, name)
        else:
            self.cache.drop(type_url, name)
        if had_body:
            aliases = [event for alias in self.cache.aliases(type_url, name) for event in self.remove(type_url, alias)]
            return [ResourceRemoved(type_url, name), *aliases]
        return [ResourceDoesNotExist(type_url, name)] if by_name and not was_missing else []

    def fail(self, type_url: str, errors: Iterable[NamedError]) -> list[Event]:
        """Errors the control plane reports itself (xRFC TP3): "not found" is an answer, the rest is weather."""
        events: list[Event] = []
        for error in errors:
            if not self.subscriptions.covers(type_url, error.name):
                continue
            if error.code == _NOT_FOUND:
                events += self.remove(type_url, error.name)
            else:
                events.append(ResourceFailed(type_url, error.name, f"status {error.code}: {error.message}"))
        return events


def _shape_problem(type_url: str, resource: WireResource, name: str, so_far: Reception) -> str | None:
    if not name:
        return f"no name in {len(resource.body)} bytes of {resource.type_url or 'no type'}"
    if resource.type_url != type_url and not resource.is_heartbeat:
        return f"is a {resource.type_url or 'resource without a type'} in a response for {type_url}"
    return "the same name twice in one response" if name in so_far.present else None
