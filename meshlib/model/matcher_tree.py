"""The unified matcher: `xds.type.matcher.v3.Matcher`, a decision over inputs. What is decided is the action's `T`.

Frozen values; `meshlib.routing.matcher_tree` compiles them. A virtual host's actions are indexes of its routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from meshlib.model.strings import StringMatcher

__all__ = [
    "AllOf",
    "FieldMatcher",
    "Input",
    "MapKind",
    "Matcher",
    "MatcherList",
    "MatcherTree",
    "Not",
    "OnMatch",
    "OneOf",
    "Predicate",
    "SinglePredicate",
    "actions",
]

T = TypeVar("T")
MapKind = Literal["exact_match_map", "prefix_match_map"]


@dataclass(frozen=True, slots=True)
class Input:
    """Where a value comes from: a request header (its values joined by `,`), the first value of a query parameter,
    an object of the filter state. `name` of a header is in lower case.
    """

    kind: Literal["header", "query_parameter", "filter_state"]
    name: str


@dataclass(frozen=True, slots=True)
class SinglePredicate:
    """`single_predicate`: an input and what its value must be. A missing value never matches."""

    input: Input
    match: StringMatcher


@dataclass(frozen=True, slots=True)
class OneOf:
    """`or_matcher`."""

    predicates: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """`and_matcher`."""

    predicates: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """`not_matcher`."""

    predicate: Predicate


Predicate: TypeAlias = "SinglePredicate | OneOf | AllOf | Not"


@dataclass(frozen=True, slots=True)
class OnMatch(Generic[T]):
    """What follows from a match: an action, or a matcher that decides further. With `keep_matching` the match is noted
    and the next one looked for.
    """

    then: T | Matcher[T]
    keep_matching: bool = False


@dataclass(frozen=True, slots=True)
class FieldMatcher(Generic[T]):
    """One line of a `MatcherList`."""

    predicate: Predicate
    on_match: OnMatch[T]


@dataclass(frozen=True, slots=True)
class MatcherList(Generic[T]):
    """`matcher_list`: the first line whose predicate holds."""

    lines: tuple[FieldMatcher[T], ...]
    on_no_match: OnMatch[T] | None = None


@dataclass(frozen=True, slots=True)
class MatcherTree(Generic[T]):
    """`matcher_tree`: the entry whose key is the input's value, or the longest key that is a prefix of it."""

    input: Input
    kind: MapKind
    entries: tuple[tuple[str, OnMatch[T]], ...]
    on_no_match: OnMatch[T] | None = None


Matcher: TypeAlias = MatcherList[T] | MatcherTree[T]


def actions(matcher: Matcher[T]) -> Iterator[T]:
    """Every action of a matcher, in the order they stand in."""
    lines: Iterable[OnMatch[T]]
    if isinstance(matcher, MatcherList):
        lines = (line.on_match for line in matcher.lines)
    else:
        lines = (on_match for _, on_match in matcher.entries)
    for on_match in (*lines, *((matcher.on_no_match,) if matcher.on_no_match else ())):
        if isinstance(on_match.then, MatcherList | MatcherTree):
            yield from actions(on_match.then)
        else:
            yield on_match.then
