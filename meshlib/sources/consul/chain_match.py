"""The conditions of a service-router's route (`makeRouteMatchForDiscoveryRoute` in Consul's `agent/xds/routes.go`)."""

from __future__ import annotations

import re

from meshlib.model.matchers import HeaderMatcher, PathMatcher, Present, QueryParameterMatcher, RouteMatch, StringMatcher
from meshlib.model.report import ResourceError
from meshlib.sources.consul.fields import Fields

EVERYTHING = RouteMatch(PathMatcher("prefix", "/"))
_PATHS = (("PathExact", "path"), ("PathPrefix", "prefix"), ("PathRegex", "safe_regex"))
_VALUES = (("Exact", "exact"), ("Regex", "safe_regex"), ("Prefix", "prefix"), ("Suffix", "suffix"))


def route_match(said: Fields | None) -> RouteMatch:
    """The match of a route; None is everything. Raises `ResourceError`."""
    http = said.object("HTTP") if said else None
    if said:
        said.only("HTTP")
    if http is None:
        return EVERYTHING
    http.only("PathExact", "PathPrefix", "PathRegex", "CaseInsensitive", "Header", "QueryParam", "Methods")
    sensitive = not http.flag("CaseInsensitive")
    path = next((PathMatcher(kind, http.text(key), sensitive) for key, kind in _PATHS if http.text(key)), None)  # type: ignore[arg-type]
    headers = tuple(_header(header) for header in http.objects("Header"))
    if methods := http.texts("Methods"):
        wanted = "|".join(re.escape(method) for method in methods)
        headers = (*headers, HeaderMatcher(":method", StringMatcher("safe_regex", wanted)))
    queries = tuple(_query_parameter(query) for query in http.objects("QueryParam"))
    return RouteMatch(path or PathMatcher("prefix", "/", sensitive), headers, queries)


def _header(said: Fields) -> HeaderMatcher:
    said.only("Name", "Present", "Exact", "Prefix", "Suffix", "Regex", "Invert")
    return HeaderMatcher(said.text("Name").lower(), _value(said), invert=said.flag("Invert"))


def _query_parameter(said: Fields) -> QueryParameterMatcher:
    said.only("Name", "Present", "Exact", "Regex")
    return QueryParameterMatcher(said.text("Name"), _value(said))


def _value(said: Fields) -> StringMatcher | Present:
    found = next((StringMatcher(kind, said.text(key)) for key, kind in _VALUES if said.text(key)), None)  # type: ignore[arg-type]
    if found is None and not said.flag("Present"):
        raise ResourceError(said.path, "one of Present, Exact, Prefix, Suffix and Regex is needed", said.resource)
    return found or Present()
