"""What of a call a route may look at beside the request: dynamic metadata, filter state, the caller's TLS.

A proxy's filters and connections make these; here a call carries its own (`RequestHead.metadata`,
`RequestHead.filter_state`), and most carry none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from meshlib.model.strings import StringMatcher

__all__ = [
    "AnyOf",
    "AnyValue",
    "DoubleMatch",
    "FilterStateMatcher",
    "IpRanges",
    "ListHas",
    "MetadataMatcher",
    "TlsContextMatch",
    "ValueMatcher",
]


@dataclass(frozen=True, slots=True)
class TlsContextMatch:
    """`RouteMatch.TlsContextMatchOptions`: whether the caller presented a certificate, and whether it was validated;
    None asks for neither. A call from inside the process presents none.
    """

    presented: bool | None = None
    validated: bool | None = None


@dataclass(frozen=True, slots=True)
class AnyValue:
    """`ValueMatcher.present_match`: a value that is there (with False nothing matches, as in Envoy)."""

    present: bool = True


@dataclass(frozen=True, slots=True)
class DoubleMatch:
    """`envoy.type.matcher.v3.DoubleMatcher`: a number in `[start, end)`; exactly `start` where `end` is None."""

    start: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class ListHas:
    """`envoy.type.matcher.v3.ListMatcher`: a list of which one item matches."""

    one_of: ValueMatcher


@dataclass(frozen=True, slots=True)
class AnyOf:
    """`envoy.type.matcher.v3.OrMatcher`."""

    matchers: tuple[ValueMatcher, ...]


ValueMatcher: TypeAlias = "StringMatcher | DoubleMatch | AnyValue | ListHas | AnyOf | bool | None"
"""`envoy.type.matcher.v3.ValueMatcher`; a bool is `bool_match`, None is `null_match`."""


@dataclass(frozen=True, slots=True)
class MetadataMatcher:
    """`envoy.type.matcher.v3.MetadataMatcher`: the value below `path` in the namespace `filter`. Without such a value
    only `invert` matches.
    """

    filter: str
    path: tuple[str, ...]
    value: ValueMatcher
    invert: bool = False


@dataclass(frozen=True, slots=True)
class IpRanges:
    """`envoy.type.matcher.v3.AddressMatcher`: an address in one of the ranges (`10.0.0.0/8`), or with `invert` in
    none.
    """

    ranges: tuple[str, ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class FilterStateMatcher:
    """`envoy.type.matcher.v3.FilterStateMatcher`: the object under `key`, as text. Without it nothing matches."""

    key: str
    match: StringMatcher | IpRanges
