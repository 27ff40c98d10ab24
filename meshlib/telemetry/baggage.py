"""W3C baggage by policy: only the keys that were allowed cross this process, and only within W3C's limits.

Baggage is text that strangers chose, and that services further on may trust: so by default none of it is handed on.
Source: https://www.w3.org/TR/baggage/ (64 members, 8192 bytes).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import quote, unquote

MAX_MEMBERS = 64
MAX_BYTES = 8192
ALL = "*"

_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Printable ASCII without space, `"`, `,`, `;` and `\`: what a value may hold unescaped.
_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_PROPERTIES = re.compile(r"[\x20-\x2b\x2d-\x7e\t]*")


class BaggagePolicy:
    """`allowed`: the keys that may pass; `"*"` among them allows all. Empty (the default): no baggage passes."""

    __slots__ = ("_all", "_allowed")

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset((allowed,) if isinstance(allowed, str) else allowed)
        self._all = ALL in self._allowed

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def filtered(self, header: str | None) -> str:
        """The members of a `baggage` header that may pass, as they were written; empty when there are none."""
        if not header or not self._allowed:
            return ""
        return _joined(member for key, member, _ in _members(header) if self._passes(key))

    def values(self, header: str | None) -> dict[str, str]:
        """The same as keys and decoded values."""
        passed = self.filtered(header)
        return {key: unquote(value) for key, _, value in _members(passed)} if passed else {}

    def render(self, entries: Iterable[tuple[str, object]]) -> str:
        """A header of the entries that may pass."""
        return _joined(
            f"{key}={quote(str(value), safe=_SAFE)}"
            for key, value in entries
            if self._passes(key) and _KEY.fullmatch(key)
        )

    def _passes(self, key: str) -> bool:
        return self._all or key in self._allowed


_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"


def _members(header: str) -> Iterator[tuple[str, str, str]]:
    """(key, member, value) of each well-formed member; the others are left out."""
    for raw in header.split(",", 4 * MAX_MEMBERS)[: 4 * MAX_MEMBERS]:
        member = raw.strip(" \t")
        pair, semicolon, properties = member.partition(";")
        key, equals, value = pair.partition("=")
        key, value = key.strip(" \t"), value.strip(" \t")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            continue
        if semicolon and not _PROPERTIES.fullmatch(properties):
            continue
        yield key, member, value


def _joined(members: Iterable[str]) -> str:
    """As many whole members as W3C's limits have room for."""
    kept: list[str] = []
    size = -1
    for member in members:
        size += len(member) + 1
        if len(kept) == MAX_MEMBERS or size > MAX_BYTES:
            break
        kept.append(member)
    return ",".join(kept)
