"""Which routes can match a request, without trying every route.

By path first. Where many routes have one path, by a header or query parameter that tells them apart, and so on within
what that leaves, as long as it leaves less. Candidates come out in route order, so the first match still wins; their
conditions are still tested, all but the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshlib.model.request import RequestHead
from meshlib.routing.cookies import find_cookie
from meshlib.routing.query import first_parameter
from meshlib.routing.text_index import Pattern, TextIndex

NEVER_CLOSED = 1 << 60
FEW = 8
"""Routes that are tried in turn: so few cost no more than looking up which of them to try."""
_COPIED = 32  # routes of shorter prefixes that are copied to a longer one, rather than gone through at each request


class Key(NamedTuple):
    """A part of a request that routes may be told apart by."""

    part: Literal["header", "query_parameter", "cookie"]
    name: str

    def values(self, head: RequestHead) -> Sequence[str]:
        """The request's values of it, of which one must fit."""
        if self.part == "header":
            return head.get_all(self.name)
        find = find_cookie if self.part == "cookie" else _parameter
        value = find(head, self.name)
        return () if value is None else (value,)


def _parameter(head: RequestHead, name: str) -> str | None:
    return first_parameter(head.query, name)


@dataclass(frozen=True, slots=True)
class IndexedRoute:
    """What the index sees of a route: its path is one of `paths`, and of each of the `keys` a value must fit.

    `unconditional`: the path is all there is to it, so no later route of the same path is ever reached.
    """

    paths: tuple[Pattern, ...]
    keys: Mapping[Key, Pattern]
    unconditional: bool


class Candidates:
    """Some routes: `plain` ones, ascending, and those to be `looked_up` by something of the request."""

    __slots__ = ("_parts", "closed", "first", "looked_up", "plain")

    def __init__(self, plain: tuple[int, ...], looked_up: tuple[_LookUp, ...], closed: int, first: int) -> None:
        self.plain = plain
        self.looked_up = looked_up
        self.closed = closed
        self.first = first
        self._parts: tuple[Candidates, ...] = ()

    def gather(self, head: RequestHead, into: list[int]) -> None:
        """Add the routes that can match a request."""
        into += self.plain
        for look_up in self.looked_up:
            look_up.gather(head, into)
        for part in self._parts:
            part.gather(head, into)

    @property
    def settled(self) -> bool:
        """Whether `plain` says it all."""
        return not self.looked_up and not self._parts

    def joined(self, above: Candidates) -> Candidates:
        """These and those of a shorter prefix, without what comes after a route that takes all."""
        closed = min(self.closed, above.closed)
        if above.first > closed:
            return self
        own, more = _until(self.plain, closed), _until(above.plain, closed)
        first = min(self.first, above.first)
        if len(more) <= _COPIED and not above._parts:
            both = Candidates(
                tuple(sorted({*own, *more})),
                tuple(each for each in (*self.looked_up, *above.looked_up) if each.first < closed),
                closed,
                first,
            )
            both._parts = self._parts
            return both
        both = Candidates(own, self.looked_up, closed, first)
        both._parts = (*self._parts, above)
        return both


NOTHING = Candidates((), (), NEVER_CLOSED, NEVER_CLOSED)


def _until(indexes: tuple[int, ...], closed: int) -> tuple[int, ...]:
    return tuple(index for index in indexes if index <= closed)


class _LookUp:
    """Routes by the value of a key."""

    __slots__ = ("_index", "_key", "first")

    def __init__(self, key: Key, index: TextIndex[Candidates], first: int) -> None:
        self._key = key
        self._index = index
        self.first = first

    def gather(self, head: RequestHead, into: list[int]) -> None:
        for value in self._key.values(head):
            for found in self._index.find(value):
                found.gather(head, into)


class RouteIndex:
    """The routes of a virtual host, or some of them (`among`, ascending; all without it)."""

    __slots__ = ("_paths",)

    def __init__(self, routes: Sequence[IndexedRoute], among: Iterable[int] | None = None) -> None:
        of_path: dict[Pattern, list[int]] = {}
        for index in range(len(routes)) if among is None else among:
            for pattern in routes[index].paths:
                of_path.setdefault(pattern, []).append(index)
        self._paths = TextIndex(
            {pattern: _candidates(_reachable(indexes, routes), routes) for pattern, indexes in of_path.items()},
            Candidates.joined,
            NOTHING,
        )

    def candidates(self, head: RequestHead) -> Sequence[int]:
        """Indexes of routes whose path matches, ascending; some that others rule out are left out."""
        found = self._paths.find(head.path_only)
        if len(found) == 1 and (only := found[0]).settled:
            return only.plain
        gathered: list[int] = []
        for each in found:
            each.gather(head, gathered)
        gathered.sort()
        return gathered


def _reachable(indexes: list[int], routes: Sequence[IndexedRoute]) -> list[int]:
    """Routes of one path, up to the first that takes all."""
    for at, index in enumerate(indexes):
        if routes[index].unconditional:
            return indexes[: at + 1]
    return indexes


def _candidates(
    indexes: Sequence[int], routes: Sequence[IndexedRoute], used: frozenset[Key] = frozenset()
) -> Candidates:
    last = indexes[-1]
    closed = last if not used and routes[last].unconditional else NEVER_CLOSED
    plain, looked_up = list(indexes), []
    while len(plain) > FEW and (key := _most_telling(plain, routes, used)) is not None:
        by_value: dict[Pattern, list[int]] = {}
        rest: list[int] = []
        for index in plain:
            pattern = routes[index].keys.get(key)
            (rest if pattern is None else by_value.setdefault(pattern, [])).append(index)
        used |= {key}
        found = {pattern: _candidates(some, routes, used) for pattern, some in by_value.items()}
        first = min(some[0] for some in by_value.values())
        looked_up.append(_LookUp(key, TextIndex(found, Candidates.joined, NOTHING), first))
        plain = rest
    return Candidates(tuple(plain), tuple(looked_up), closed, indexes[0])


def _most_telling(indexes: Sequence[int], routes: Sequence[IndexedRoute], used: frozenset[Key]) -> Key | None:
    """The key that rules out the most routes, whatever its value; None when none rules out more than a few."""
    shares: dict[Key, dict[Pattern, int]] = {}
    for index in indexes:
        for key, pattern in routes[index].keys.items():
            if key not in used:
                counts = shares.setdefault(key, {})
                counts[pattern] = counts.get(pattern, 0) + 1
    ruled_out = {key: sum(counts.values()) - max(counts.values()) for key, counts in shares.items()}
    best = max(ruled_out, key=ruled_out.__getitem__, default=None)
    return best if best is not None and ruled_out[best] >= FEW else None
