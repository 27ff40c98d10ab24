"""Prefixes to values: the longest configured prefix of a text, whatever their number.

A trie laid flat: the prefixes sorted, each with the longest other one it begins with (its parent). Everything that
begins with a prefix stands right behind it, so the last prefix not above a text, or one of its ancestors, is the
answer: one binary search in C and a short climb, where a trie of nodes would take a step of Python a character.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class PrefixTrie(Generic[T]):
    """`make` gives the value of a prefix from that of its parent, so that each may hold what those above it hold.

    `missing` is the answer where no prefix fits, and the parent of those that have none.
    """

    __slots__ = ("_jumps", "_keys", "_missing", "_parents", "_values")

    def __init__(self, prefixes: Iterable[str], make: Callable[[str, T], T], missing: T) -> None:
        self._keys = sorted(prefixes)
        self._missing = missing
        self._parents: list[int] = []
        self._jumps: list[int] = []  # far up, so that climbing takes a logarithmic number of steps
        self._values: list[T] = []
        depths: list[int] = []
        for at, key in enumerate(self._keys):
            parent = self._climb(at - 1, key)
            self._parents.append(parent)
            self._jumps.append(_jump(parent, self._jumps, depths))
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
            self._values.append(make(key, self._values[parent] if parent >= 0 else missing))

    def find(self, text: str) -> T:
        """The value of the longest prefix of a text."""
        at = bisect_right(self._keys, text) - 1
        if at >= 0 and not text.startswith(self._keys[at]):
            at = self._climb(at, text)
        return self._values[at] if at >= 0 else self._missing

    def _climb(self, at: int, text: str) -> int:
        """The nearest prefix of a text among one and its ancestors, -1 when there is none."""
        keys, parents, jumps = self._keys, self._parents, self._jumps
        while at >= 0 and not text.startswith(keys[at]):
            far = jumps[at]
            at = parents[at] if far < 0 or text.startswith(keys[far]) else far
        return at


def _jump(parent: int, jumps: list[int], depths: list[int]) -> int:
    """How far a child of `parent` may jump: as far as its parent's two jumps when those are equally long."""
    if parent < 0 or jumps[parent] < 0:
        return parent
    near = jumps[parent]
    far = jumps[near]
    above = depths[far] if far >= 0 else -1
    return far if depths[parent] - depths[near] == depths[near] - above else parent
