"""The last good bytes of every resource, and what is known of those that have none."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.sources.xds.subscriptions import Subscriptions
from meshlib.sources.xds.types import WILDCARD


@dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """The version that was refused last, and why."""

    version: str
    reason: str


@dataclass(slots=True)
class CacheEntry:
    """One resource. ``origin`` is the server it came from: versions mean nothing to any other server.

    ``alias_of``: the resource that answers for this name and is kept under its own, empty when it is not an alias.
    """

    body: bytes | None = None
    version: str = ""
    origin: int = -1
    is_missing: bool = False
    alias_of: str = ""
    rejection: Rejection | None = None


class ResourceCache:
    """Entries by type and name, shared by all links so that a fallback server continues where the primary stopped."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, CacheEntry]] = {}

    def get(self, type_url: str, name: str) -> CacheEntry | None:
        """The entry, if anything is known of the resource."""
        return self._entries.get(type_url, {}).get(name)

    def entry(self, type_url: str, name: str) -> CacheEntry:
        """The entry, made if nothing was known of the resource."""
        return self._entries.setdefault(type_url, {}).setdefault(name, CacheEntry())

    def entries(self, type_url: str) -> dict[str, CacheEntry]:
        """All entries of a type; a copy, so that entries may be dropped while looking through it."""
        return dict(self._entries.get(type_url, {}))

    def is_known(self, type_url: str, name: str) -> bool:
        """Whether there are good bytes, or the knowledge that the resource does not exist."""
        found = self.get(type_url, name)
        return found is not None and (found.body is not None or found.is_missing or bool(found.alias_of))

    def mark_missing(self, type_url: str, name: str) -> None:
        """Remember that the resource does not exist; its bytes, if any, are forgotten."""
        self._entries.setdefault(type_url, {})[name] = CacheEntry(is_missing=True)

    def mark_alias(self, type_url: str, alias: str, name: str) -> None:
        """Remember that the resource ``name`` answers for ``alias``."""
        self._entries.setdefault(type_url, {})[alias] = CacheEntry(alias_of=name)

    def aliases(self, type_url: str, name: str) -> list[str]:
        """The names that a resource answers for beside its own."""
        return [alias for alias, entry in self._entries.get(type_url, {}).items() if entry.alias_of == name]

    def drop(self, type_url: str, name: str) -> None:
        """Forget a resource altogether."""
        self._entries.get(type_url, {}).pop(name, None)

    def keep_only(self, subscriptions: Subscriptions, type_url: str) -> None:
        """Forget what nobody subscribes to any more."""
        for name in self.entries(type_url):
            if not subscriptions.covers(type_url, name):
                self.drop(type_url, name)

    def lacks_any(self, subscriptions: Subscriptions) -> bool:
        """Whether something subscribed to has never been answered: what makes gRFC A71 try the next server."""
        return any(
            not self.is_known(type_url, name)
            for type_url in subscriptions.types()
            for name in subscriptions.names(type_url)
        )

    def mark_answered(self, type_url: str) -> None:
        """Remember that a wildcard subscription got its first answer (an empty one is an answer too)."""
        self.mark_missing(type_url, WILDCARD)
