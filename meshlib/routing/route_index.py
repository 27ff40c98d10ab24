"""Which routes can match a request, without trying every route.

By path first. Where many routes have one path, by a header or query parameter that tells them apart, and so on within
what that leaves, as long as it leaves less. Candidates come out in route order, so the first match still wins; their
conditions are still tested, all but the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


Read = Callable[[RequestHead], Sequence[str]]


class Key(NamedTuple):
    """A part of a request that routes may be told apart by."""

    part: Literal["header", "query_parameter", "cookie"]
    name: str

    def reader(self) -> Read:
        """What gives the request's values of it, of which one must fit."""
        name = self.name
        match self.part:
            case "header":
                return lambda head: head.get_all(name)
            case "cookie":
                return lambda head: _known(find_cookie(head, name))
            case "query_parameter":
                return lambda head: _known(first_parameter(head.query, name))


def _known(value: str | None) -> Sequence[str]:
    return () if value is None else (value,)


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

    __slots__ = ("_parts", "closed", "first", "looked_up", "plain", "settled")

    def __init__(self, plain: tuple[int, ...], looked_up: tuple[_LookUp, ...], closed: int, first: int) -> None:
        self.plain = plain
        self.looked_up = looked_up
        self.closed = closed
        self.first = first
        self.settled = not looked_up  # whether `plain` says it all
        self._parts: tuple[Candidates, ...] = ()

    def gather(self, head: RequestHead, into: list[int]) -> None:
        """Add the routes that can match a request."""
        into += self.plain
        for look_up in self.looked_up:
            for value in look_up.read(head):
                for found in look_up.find(value):
                    if found.settled:
                        into += found.plain
                    else:
                        found.gather(head, into)
        for part in self._parts:
            part.gather(head, into)

    def _add(self, parts: tuple[Candidates, ...]) -> Candidates:
        self._parts = parts
        self.settled = not self.looked_up and not parts
        return self

    def joined(self, above: Candidates) -> Candidates:
        """These and those of a shorter prefix, without what comes after a route that takes all."""
        closed = min(self.closed, above.closed)
        if above.first > closed:
            return self
        own, more = _until(self.plain, closed), _until(above.plain, closed)
        first = min(self.first, above.first)
        if len(more) <= _COPIED and not above._parts:
            looked_up = tuple(each for each in (*self.looked_up, *above.looked_up) if each.first < closed)
            return Candidates(tuple(sorted({*own, *more})), looked_up, closed, first)._add(self._parts)
        return Candidates(own, self.looked_up, closed, first)._add((*self._parts, above))


NOTHING = Candidates((), (), NEVER_CLOSED, NEVER_CLOSED)


def _until(indexes: tuple[int, ...], closed: int) -> tuple[int, ...]:
    return tuple(index for index in indexes if index <= closed)


class _LookUp:
    """Routes by the values that `read` gives."""

    __slots__ = ("find", "first", "read")

    def __init__(self, key: Key, index: TextIndex[Candidates], first: int) -> None:
        self.read = key.reader()
        self.find = index.find
        self.first = first


class RouteIndex:
    """The routes of a virtual host, or some of them (`among`, ascending; all without it)."""

    __slots__ = ("_find", "_find_one")

    def __init__(self, routes: Sequence[IndexedRoute], among: Iterable[int] | None = None) -> None:
        of_path: dict[Pattern, list[int]] = {}
        for index in range(len(routes)) if among is None else among:
            for pattern in routes[index].paths:
                of_path.setdefault(pattern, []).append(index)
        paths = TextIndex(
            {pattern: _candidates(_reachable(indexes, routes), routes) for pattern, indexes in of_path.items()},
            Candidates.joined,
            NOTHING,
        )
        self._find, self._find_one = paths.find, paths.find_one

    def candidates(self, head: RequestHead) -> Sequence[int]:
        """Indexes of routes whose path matches, ascending; some that others rule out are left out."""
        path = head.path
        if "?" in path or "#" in path:
            path = head.path_only
        if self._find_one is not None:
            only = self._find_one(path)
            if only.settled:
                return only.plain
            found: Sequence[Candidates] = (only,)
        else:
            found = self._find(path)
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
