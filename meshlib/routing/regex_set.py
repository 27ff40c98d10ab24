"""Many regular expressions at once: one `RE2::Set` says which of them match, for the price of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshlib.model.re2_program import re2_set
from meshlib.routing.regex import compile_regex
from meshlib.routing.text import wire_bytes


class RegexSet:
    """Patterns by their places; each is known to compile, for a set does not say which of them is bad."""

    __slots__ = ("_halves", "_match", "_patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._halves: tuple[RegexSet, RegexSet] | None = None
        self._match: Any = None
        compiled = re2_set(patterns)
        if compiled is not None:
            self._match = compiled.Match
        elif len(patterns) > 1:
            middle = len(patterns) // 2
            self._halves = (RegexSet(patterns[:middle]), RegexSet(patterns[middle:]))

    def find(self, text: str) -> Sequence[int]:
        """The places of the patterns that match all of a text, in no order."""
        if self._match is not None:
            found: list[int] = self._match(wire_bytes(text))
            if found:
                found.remove(len(self._patterns))  # the one that always matches
                return found
        if self._halves is not None:
            first, second = self._halves
            middle = len(first._patterns)
            return [*first.find(text), *(middle + place for place in second.find(text))]
        # Out of memory in the middle of a search, which RE2 tells by finding nothing at all.
        return [place for place, pattern in enumerate(self._patterns) if compile_regex(pattern).fullmatch(text)]
