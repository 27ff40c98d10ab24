"""What the owner wants to know about: names by type, shared by every server the client talks to."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.sources.xds.types import WILDCARD


class Subscriptions:
    """A set of (type, name); the name ``*`` stands for all resources of the type."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def add(self, type_url: str, name: str) -> bool:
        """Subscribe; false if it was subscribed already."""
        names = self._names.setdefault(type_url, set())
        if name in names:
            return False
        names.add(name)
        return True

    def discard(self, type_url: str, name: str) -> bool:
        """Unsubscribe; false if it was not subscribed."""
        names = self._names.get(type_url, set())
        if name not in names:
            return False
        names.discard(name)
        return True

    def types(self) -> set[str]:
        """Types that have, or had, a subscription."""
        return set(self._names)

    def names(self, type_url: str) -> frozenset[str]:
        """The subscribed names of a type, with ``*`` among them for a wildcard."""
        return frozenset(self._names.get(type_url, ()))

    def covers(self, type_url: str, name: str) -> bool:
        """Whether a resource of that name is wanted, by name or by wildcard."""
        names = self._names.get(type_url, ())
        return name in names or WILDCARD in names

    def match(self, type_url: str, name: str, aliases: Iterable[str] = ()) -> list[str]:
        """The names under which the owner knows a resource: its own if covered, and its aliases if subscribed."""
        names = self._names.get(type_url, set())
        own = [name] if name in names or WILDCARD in names else []
        return own + [alias for alias in aliases if alias in names and alias != name]

    def __bool__(self) -> bool:
        return any(self._names.values())
