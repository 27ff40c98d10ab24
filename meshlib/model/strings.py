"""`envoy.type.matcher.v3.StringMatcher`, which every other matcher is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["StringMatchKind", "StringMatcher"]

StringMatchKind = Literal["exact", "prefix", "suffix", "contains", "safe_regex"]


@dataclass(frozen=True, slots=True)
class StringMatcher:
    """`envoy.type.matcher.v3.StringMatcher`. A `safe_regex` must match the whole value (RE2 full match).

    `ignore_case` has no effect on `safe_regex`, as in Envoy.
    """

    kind: StringMatchKind
    value: str
    ignore_case: bool = False
