"""Route, header, query and string matchers. One that is not supported drops its route: it must never match more."""

from __future__ import annotations

from typing import Any

from meshlib.model.matchers import (
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
)
from meshlib.sources.xds.decode.common import runtime_fraction, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.regex import regex

_ROUTE_MATCH = frozenset(
    {
        "prefix",
        "path",
        "safe_regex",
        "path_separated_prefix",
        "case_sensitive",
        "runtime_fraction",
        "headers",
        "query_parameters",
        "grpc",
    }
)
_STRING_KINDS = frozenset({"exact", "prefix", "suffix", "contains"})
_DEPRECATED_HEADER_KINDS: dict[str, Any] = {
    "exact_match": "exact",
    "prefix_match": "prefix",
    "suffix_match": "suffix",
    "contains_match": "contains",
}


def string_matcher(ctx: Context, message: Any, path: str) -> StringMatcher:
    """`envoy.type.matcher.v3.StringMatcher`."""
    kind: Any = message.WhichOneof("match_pattern")
    if kind in _STRING_KINDS:
        return StringMatcher(kind, getattr(message, kind), message.ignore_case)
    if kind == "safe_regex":
        return StringMatcher("safe_regex", regex(ctx, message.safe_regex, join(path, "safe_regex")))
    raise UnsupportedError(join(path, kind), "custom string matchers are not supported")


def _header_match(ctx: Context, message: Any, path: str) -> StringMatcher | Int64Range | Present:
    kind = message.WhichOneof("header_match_specifier")
    match kind:
        case None:
            return Present()
        case "present_match":
            return Present(message.present_match)
        case "range_match":
            return Int64Range(message.range_match.start, message.range_match.end)
        case "string_match":
            return string_matcher(ctx, message.string_match, join(path, kind))
        case "safe_regex_match":
            return StringMatcher("safe_regex", regex(ctx, message.safe_regex_match, join(path, kind)))
    return StringMatcher(_DEPRECATED_HEADER_KINDS[kind], getattr(message, kind))


def header_matcher(ctx: Context, message: Any, path: str) -> HeaderMatcher:
    """`envoy.config.route.v3.HeaderMatcher`; without a specifier it asks for presence."""
    match = _header_match(ctx, message, path)
    return HeaderMatcher(message.name.lower(), match, message.invert_match, message.treat_missing_header_as_empty)


def _query_matcher(ctx: Context, message: Any, path: str) -> QueryParameterMatcher:
    match message.WhichOneof("query_parameter_match_specifier"):
        case "string_match":
            found: StringMatcher | Present = string_matcher(ctx, message.string_match, join(path, "string_match"))
        case "present_match":
            found = Present(message.present_match)
        case _:
            found = Present()
    return QueryParameterMatcher(message.name, found)


def _path_matcher(ctx: Context, message: Any, path: str) -> PathMatcher:
    kind: Any = message.WhichOneof("path_specifier")
    if kind == "safe_regex":
        return PathMatcher("safe_regex", regex(ctx, message.safe_regex, join(path, kind)))
    if kind in {"path", "prefix", "path_separated_prefix"}:
        return PathMatcher(kind, getattr(message, kind), wrapped(message, "case_sensitive", default=True))
    raise UnsupportedError(join(path, kind), "this path matcher is not supported")


def route_match(ctx: Context, message: Any, path: str) -> RouteMatch:
    """`envoy.config.route.v3.RouteMatch`; raises `UnsupportedError` for a part that is not supported."""
    for descriptor, _ in message.ListFields():
        if descriptor.name not in _ROUTE_MATCH:
            raise UnsupportedError(join(path, descriptor.name), "this matcher is not supported")
    fraction = None
    if message.HasField("runtime_fraction"):
        fraction = runtime_fraction(ctx, message.runtime_fraction, join(path, "runtime_fraction"))
    headers = enumerate(message.headers)
    parameters = enumerate(message.query_parameters)
    return RouteMatch(
        path=_path_matcher(ctx, message, path),
        headers=tuple(header_matcher(ctx, m, f"{join(path, 'headers')}[{i}]") for i, m in headers),
        query_parameters=tuple(_query_matcher(ctx, m, f"{join(path, 'query_parameters')}[{i}]") for i, m in parameters),
        grpc=message.HasField("grpc"),
        runtime_fraction=fraction,
    )
