"""Patterns of one text to what belongs to them, without trying each: exact ones by dictionary, prefixes by trie, all
regular expressions as one RE2 set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from meshlib.routing.prefix_trie import PrefixTrie
from meshlib.routing.regex_set import RegexSet
from meshlib.routing.text import ascii_lower


class Pattern(NamedTuple):
    """What a text must be. `text` is as on the wire, in lower case where `any_case`."""

    kind: Literal["exact", "prefix", "regex"]
    text: str
    any_case: bool = False


class Joinable(Protocol):
    """What is found. `closed`: nothing from here on can matter beside it (a route without further conditions)."""

    closed: int
    first: int


J = TypeVar("J", bound=Joinable)


Join = Callable[[J, J], J]
"""Puts together what a pattern leads to and what those do that match whenever it does."""


class _Literals(Generic[J]):
    """Exact texts and prefixes of one case rule. What is found for an exact text or a prefix holds what is found for
    every shorter prefix, so one look-up is enough.
    """

    __slots__ = ("_exact", "_nothing", "_prefixes")

    def __init__(self, found: Mapping[Pattern, J], join: Join[J], nothing: J) -> None:
        prefixes = {pattern.text: item for pattern, item in found.items() if pattern.kind == "prefix"}
        trie = PrefixTrie(prefixes, lambda key, above: join(prefixes[key], above), nothing)
        self._exact = {
            pattern.text: join(item, trie.find(pattern.text))
            for pattern, item in found.items()
            if pattern.kind == "exact"
        }
        self._prefixes = trie.find if prefixes else None
        self._nothing = nothing

    @property
    def shortest(self) -> Callable[[str], J]:
        """`find`, or what it comes to where there are only prefixes."""
        return self._prefixes if self._prefixes is not None and not self._exact else self.find

    def find(self, text: str) -> J:
        found = self._exact.get(text)
        if found is not None:
            return found
        return self._nothing if self._prefixes is None else self._prefixes(text)


class TextIndex(Generic[J]):
    """`found` is what belongs to each pattern. Its regular expressions are known to compile."""

    __slots__ = ("_any_case", "_first_regex", "_literals", "_of_regexes", "_regexes", "find_one")

    def __init__(self, found: Mapping[Pattern, J], join: Join[J], nothing: J) -> None:
        by_kind: dict[tuple[bool, bool], dict[Pattern, J]] = {}
        for pattern, item in found.items():
            by_kind.setdefault((pattern.kind == "regex", pattern.any_case), {})[pattern] = item
        regexes = by_kind.get((True, False), {})
        any_case = by_kind.get((False, True))
        self._literals = _Literals(by_kind.get((False, False), {}), join, nothing)
        self._any_case = _Literals(any_case, join, nothing) if any_case else None
        self._regexes = RegexSet([pattern.text for pattern in regexes]) if regexes else None
        self._of_regexes = tuple(regexes.values())
        self._first_regex = min((item.first for item in self._of_regexes), default=0)
        plain = self._any_case is None and self._regexes is None
        self.find_one: Callable[[str], J] | None = self._literals.shortest if plain else None
        """The one that is found, where it can only be one: in the way of every request, so without a detour."""

    def find(self, text: str) -> Sequence[J]:
        """Everything whose pattern matches, in no order."""
        found = self._literals.find(text)
        if self._any_case is None:
            if self._regexes is None or found.closed < self._first_regex:
                return (found,)
            places = self._regexes.find(text)
            return (found, *[self._of_regexes[place] for place in places]) if places else (found,)
        folded = self._any_case.find(ascii_lower(text))
        if self._regexes is None or min(found.closed, folded.closed) < self._first_regex:
            return (found, folded)
        return (found, folded, *[self._of_regexes[place] for place in self._regexes.find(text)])
