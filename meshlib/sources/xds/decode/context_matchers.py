"""Matchers of what a call carries beside its request: dynamic metadata, filter state, the caller's TLS."""

from __future__ import annotations

from typing import Any

from meshlib.model.context_matchers import (
    AnyOf,
    AnyValue,
    DoubleMatch,
    FilterStateMatcher,
    IpRanges,
    ListHas,
    MetadataMatcher,
    TlsContextMatch,
    ValueMatcher,
)
from meshlib.sources.xds.decode.common import wrapped
from meshlib.sources.xds.decode.context import Context, join
from meshlib.sources.xds.decode.string_matcher import string_matcher


def tls_context(message: Any) -> TlsContextMatch:
    """`RouteMatch.TlsContextMatchOptions`."""
    return TlsContextMatch(wrapped(message, "presented", None), wrapped(message, "validated", None))


def metadata_matcher(ctx: Context, message: Any, path: str) -> MetadataMatcher:
    """`envoy.type.matcher.v3.MetadataMatcher`."""
    keys = tuple(segment.key for segment in message.path)
    return MetadataMatcher(message.filter, keys, _value(ctx, message.value, join(path, "value")), message.invert)


def _value(ctx: Context, message: Any, path: str) -> ValueMatcher:
    kind = message.WhichOneof("match_pattern")
    where = join(path, kind)
    match kind:
        case "string_match":
            return string_matcher(ctx, message.string_match, where)
        case "bool_match":
            return bool(message.bool_match)
        case "present_match":
            return AnyValue(message.present_match)
        case "double_match":
            return _double(message.double_match)
        case "list_match":
            return ListHas(_value(ctx, message.list_match.one_of, join(where, "one_of")))
        case "or_match":
            matchers = enumerate(message.or_match.value_matchers)
            return AnyOf(tuple(_value(ctx, item, f"{join(where, 'value_matchers')}[{i}]") for i, item in matchers))
    return None  # null_match


def _double(message: Any) -> DoubleMatch:
    if message.WhichOneof("match_pattern") == "exact":
        return DoubleMatch(message.exact)
    return DoubleMatch(message.range.start, message.range.end)


def filter_state_matcher(ctx: Context, message: Any, path: str) -> FilterStateMatcher:
    """`envoy.type.matcher.v3.FilterStateMatcher`."""
    if message.WhichOneof("matcher") == "string_match":
        return FilterStateMatcher(message.key, string_matcher(ctx, message.string_match, join(path, "string_match")))
    match = message.address_match
    ranges = tuple(f"{item.address_prefix}/{item.prefix_len.value}" for item in match.ranges)
    return FilterStateMatcher(message.key, IpRanges(ranges, getattr(match, "invert_match", False)))
