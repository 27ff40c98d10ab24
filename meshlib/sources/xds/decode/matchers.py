"""Route, header, query and string matchers. One that is not supported drops its route: it must never match more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.matchers import (
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.re2_program import re2_program
from meshlib.model.report import ResourceError
from meshlib.model.uri_template import parse_template
from meshlib.sources.xds.decode.common import fractional_percent, unpack, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.context_matchers import filter_state_matcher, metadata_matcher, tls_context
from meshlib.sources.xds.decode.cookies import cookie_matchers
from meshlib.sources.xds.decode.regex import regex
from meshlib.sources.xds.decode.string_matcher import string_matcher

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
        "connect_matcher",
        "path_match_policy",
        "tls_context",
        "dynamic_metadata",
        "filter_state",
        "cookies",
    }
)
_TEMPLATE = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_TEMPLATE_MODULE = {_TEMPLATE: "envoy.extensions.path.match.uri_template.v3.uri_template_match_pb2"}
_DEPRECATED_HEADER_KINDS: dict[str, Any] = {
    "exact_match": "exact",
    "prefix_match": "prefix",
    "suffix_match": "suffix",
    "contains_match": "contains",
}


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


def query_matcher(ctx: Context, message: Any, path: str) -> QueryParameterMatcher:
    """`envoy.config.route.v3.QueryParameterMatcher`."""
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
    if kind == "connect_matcher":
        return PathMatcher(kind, "")
    if kind == "path_match_policy":
        return _path_template(message.path_match_policy, join(path, kind))
    raise UnsupportedError(join(path, kind), "this path matcher is not supported")


def _path_template(message: Any, path: str) -> PathMatcher:
    where = join(path, "typed_config")
    name, found = unpack(message.typed_config, _TEMPLATE_MODULE, where)
    if found is None:
        raise UnsupportedError(where, f"the path matcher {name!r} is not supported")
    try:
        re2_program(parse_template(found.path_template).regex, captures=False)
    except ResourceError as error:
        raise ResourceError(join(where, "path_template"), error.reason) from None
    return PathMatcher("uri_template", found.path_template)


def _fraction(message: Any) -> FractionalPercent:
    return replace(fractional_percent(message.default_value), runtime_key=message.runtime_key)


def route_match(ctx: Context, message: Any, path: str) -> RouteMatch:
    """`envoy.config.route.v3.RouteMatch`; raises `UnsupportedError` for a part that is not supported."""
    for descriptor, _ in message.ListFields():
        if descriptor.name not in _ROUTE_MATCH:
            raise UnsupportedError(join(path, descriptor.name), "this matcher is not supported")
    fraction = None
    if message.HasField("runtime_fraction"):
        fraction = _fraction(message.runtime_fraction)
    headers = enumerate(message.headers)
    parameters = enumerate(message.query_parameters)
    return RouteMatch(
        path=_path_matcher(ctx, message, path),
        headers=tuple(header_matcher(ctx, m, f"{join(path, 'headers')}[{i}]") for i, m in headers),
        query_parameters=tuple(query_matcher(ctx, m, f"{join(path, 'query_parameters')}[{i}]") for i, m in parameters),
        grpc=message.HasField("grpc"),
        runtime_fraction=fraction,
        cookies=tuple(cookie_matchers(ctx, message, path)),
        tls_context=tls_context(message.tls_context) if message.HasField("tls_context") else None,
        dynamic_metadata=tuple(
            metadata_matcher(ctx, m, f"{join(path, 'dynamic_metadata')}[{i}]")
            for i, m in enumerate(message.dynamic_metadata)
        ),
        filter_state=tuple(
            filter_state_matcher(ctx, m, f"{join(path, 'filter_state')}[{i}]")
            for i, m in enumerate(message.filter_state)
        ),
    )
