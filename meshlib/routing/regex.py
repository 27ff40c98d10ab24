"""Configured regular expressions, on RE2 only: linear time, whatever a control plane sends."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from meshlib.model.matchers import RegexRewrite
from meshlib.model.re2_program import re2_program
from meshlib.model.report import ResourceError
from meshlib.routing.text import wire_bytes

_CACHED = 4096


class Regex:
    """A compiled pattern for whole-value tests. Made by `compile_regex`."""

    __slots__ = ("_anchor", "_match", "pattern")

    def __init__(self, pattern: str, program: Any, anchor: Any) -> None:
        self.pattern = pattern
        self._match = program.Match
        self._anchor = anchor

    def fullmatch(self, text: str) -> bool:
        """Whether the pattern matches all of the text."""
        raw = wire_bytes(text)
        return bool(self._match(self._anchor, raw, 0, len(raw))[0][0] >= 0)

    def substitute(self, text: str, substitution: str) -> str:
        r"""The text with every match replaced, `\1` to `\9` and `\0` standing for groups; as `RE2::GlobalReplace`."""
        return compile_substitution(RegexRewrite(self.pattern, substitution))(text)


@lru_cache(maxsize=_CACHED)
def compile_regex(pattern: str) -> Regex:
    """Compile, or raise `ResourceError` when RE2 refuses the pattern, it is too large, or RE2 is not installed."""
    program, anchor = re2_program(pattern, captures=False)
    return Regex(pattern, program, anchor.ANCHOR_BOTH)


@lru_cache(maxsize=_CACHED)
def compile_substitution(rewrite: RegexRewrite) -> Callable[[str], str]:
    """A function that replaces every match of the pattern, as `RE2::GlobalReplace` does.

    Raises `ResourceError` for a bad pattern, and for a substitution that names a group the pattern does not have.
    """
    program, anchor = re2_program(rewrite.pattern, captures=True)
    template = _template(rewrite.substitution, program.NumberOfCapturingGroups())
    match, unanchored = program.Match, anchor.UNANCHORED

    def substitute(text: str) -> str:
        return _replace_all(lambda raw, start: match(unanchored, raw, start, len(raw)), template, wire_bytes(text))

    return substitute


_Template = tuple[bytes | int, ...]
_Spans = list[tuple[int, int]]


def _replace_all(find: Callable[[bytes, int], _Spans], template: _Template, raw: bytes) -> str:
    out: list[bytes] = []
    position, last_end = 0, -1
    while position <= len(raw):
        spans = find(raw, position)
        start, end = spans[0]
        if start < 0:
            break
        out.append(raw[position:start])
        if start == end == last_end:
            # An empty match right behind the last match does not count: step over one character (RE2 works in UTF-8).
            step = _character_length(raw, start)
            out.append(raw[start : start + step])
            position = start + step
            continue
        out.extend(part if isinstance(part, bytes) else _group(raw, spans[part]) for part in template)
        position = last_end = end
    out.append(raw[position:])
    return b"".join(out).decode("latin-1")


def _group(raw: bytes, span: tuple[int, int]) -> bytes:
    return b"" if span[0] < 0 else raw[span[0] : span[1]]


def _character_length(raw: bytes, at: int) -> int:
    """Bytes of the UTF-8 character at a place; 1 where the bytes are not UTF-8."""
    for length in (1, 2, 3, 4):
        try:
            raw[at : at + length].decode()
        except UnicodeDecodeError:
            continue
        return length
    return 1


def _template(substitution: str, groups: int) -> _Template:
    parts: list[bytes | int] = []
    raw = substitution.encode()
    literal = bytearray()
    characters = iter(raw)
    for character in characters:
        if character != 0x5C:
            literal.append(character)
            continue
        following = next(characters, None)
        if following == 0x5C:
            literal.append(0x5C)
        elif following is not None and 0x30 <= following <= 0x39:
            parts += [bytes(literal), following - 0x30]
            literal.clear()
        else:
            raise ResourceError("substitution", f"{substitution!r}: a backslash wants a digit or another backslash")
    parts.append(bytes(literal))
    highest = max((part for part in parts if isinstance(part, int)), default=0)
    if highest > groups:
        raise ResourceError("substitution", f"{substitution!r} names group {highest}, the pattern has {groups}")
    return tuple(part for part in parts if part != b"")
