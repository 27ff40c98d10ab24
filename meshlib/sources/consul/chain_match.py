"""The conditions of a service-router's route (`makeRouteMatchForDiscoveryRoute` in Consul's `agent/xds/routes.go`)."""

from __future__ import annotations

import re

from meshlib.model.matchers import (
    HeaderMatcher,
    PathMatcher,
    PathMatchKind,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
    StringMatchKind,
)
from meshlib.model.re2_program import re2_program
from meshlib.model.report import ResourceError
from meshlib.sources.consul.fields import Fields

EVERYTHING = RouteMatch(PathMatcher("prefix", "/"))
_PATHS: tuple[tuple[str, PathMatchKind], ...] = (
    ("PathExact", "path"),
    ("PathPrefix", "prefix"),
    ("PathRegex", "safe_regex"),
)
_VALUES: tuple[tuple[str, StringMatchKind], ...] = (
    ("Exact", "exact"),
    ("Regex", "safe_regex"),
    ("Prefix", "prefix"),
    ("Suffix", "suffix"),
)


def route_match(said: Fields | None) -> RouteMatch:
    """The match of a route; None is everything. Raises `ResourceError`."""
    http = said.object("HTTP") if said else None
    if said:
        said.only("HTTP")
    if http is None:
        return EVERYTHING
    http.only("PathExact", "PathPrefix", "PathRegex", "CaseInsensitive", "Header", "QueryParam", "Methods")
    sensitive = not http.flag("CaseInsensitive")
    path = next((PathMatcher(kind, _text(http, key), sensitive) for key, kind in _PATHS if http.text(key)), None)
    headers = tuple(_header(header) for header in http.objects("Header"))
    if methods := http.texts("Methods"):
        wanted = regex("|".join(re.escape(method) for method in methods), http, "Methods")
        headers = (*headers, HeaderMatcher(":method", StringMatcher("safe_regex", wanted)))
    queries = tuple(_query_parameter(query) for query in http.objects("QueryParam"))
    return RouteMatch(path or PathMatcher("prefix", "/", sensitive), headers, queries)


def regex(pattern: str, said: Fields, key: str) -> str:
    """The pattern, if RE2 takes it: Consul stores any, and one that the plan refuses would hold up all services."""
    try:
        re2_program(pattern, captures=True)
    except ResourceError as error:
        raise ResourceError(said.at(key), error.reason, said.resource) from None
    return pattern


def _text(said: Fields, key: str) -> str:
    return regex(said.text(key), said, key) if key.endswith("Regex") else said.text(key)


def _header(said: Fields) -> HeaderMatcher:
    said.only("Name", "Present", "Exact", "Prefix", "Suffix", "Regex", "Invert")
    return HeaderMatcher(said.text("Name").lower(), _value(said), invert=said.flag("Invert"))


def _query_parameter(said: Fields) -> QueryParameterMatcher:
    said.only("Name", "Present", "Exact", "Regex")
    return QueryParameterMatcher(said.text("Name"), _value(said))


def _value(said: Fields) -> StringMatcher | Present:
    found = next((StringMatcher(kind, _text(said, key)) for key, kind in _VALUES if said.text(key)), None)
    if found is None and not said.flag("Present"):
        raise ResourceError(said.path, "one of Present, Exact, Prefix, Suffix and Regex is needed", said.resource)
    return found or Present()
