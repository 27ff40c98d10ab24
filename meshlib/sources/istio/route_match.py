"""HTTPMatchRequest → RouteMatch (istiod: `TranslateRouteMatch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def route_match(match: Mapping[str, Any] | None) -> Json:
    """The route match; without a match everything."""
    if match is None:
        return {"prefix": "/"}
    headers = [_header(name, rule) for name, rule in (match.get("headers") or {}).items()]
    headers += [_without(name, rule) for name, rule in (match.get("withoutHeaders") or {}).items()]
    headers.sort(key=lambda matcher: str(matcher["name"]))
    for pseudo in ("method", "authority", "scheme"):
        if match.get(pseudo) is not None:
            headers.append(_header(f":{pseudo}", match[pseudo]))
    out: Json = {**_path(match.get("uri") or {}), "case_sensitive": not match.get("ignoreUriCase", False)}
    if headers:
        out["headers"] = headers
    if parameters := match.get("queryParams"):
        out["query_parameters"] = [_parameter(name, rule) for name, rule in parameters.items()]
    return out


def is_catch_all(match: Json) -> bool:
    """Whether a route with this match leaves nothing for the routes after it."""
    everything = match.get("prefix") == "/" or match.get("safe_regex", {}).get("regex") == ".*"
    return everything and not match.get("headers") and not match.get("query_parameters")


def _path(uri: Mapping[str, str]) -> Json:
    if "exact" in uri:
        return {"path": uri["exact"]}
    if "regex" in uri:
        return {"safe_regex": {"regex": uri["regex"]}}
    return {"prefix": uri.get("prefix", "/")}


def _header(name: str, rule: Mapping[str, str] | None) -> Json:
    if _is_present(rule):
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_matcher(rule)}


def _without(name: str, rule: Mapping[str, str] | None) -> Json:
    matcher = {**_header(name, rule), "invert_match": True}
    if not _is_present(rule):  # the two exclude each other in Envoy
        matcher["treat_missing_header_as_empty"] = True
    return matcher


def _parameter(name: str, rule: Mapping[str, str] | None) -> Json:
    if _is_present(rule):
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_matcher(rule)}


def _is_present(rule: Mapping[str, str] | None) -> bool:
    """An empty rule asks for presence, and so does the regex `*`, which is none."""
    return not rule or rule.get("regex") == "*"


def string_matcher(rule: Mapping[str, str] | None) -> Json:
    """Envoy's StringMatcher of a StringMatch that says something."""
    rule = rule or {}
    if "regex" in rule:
        return {"safe_regex": {"regex": rule["regex"]}}
    return {"exact": rule["exact"]} if "exact" in rule else {"prefix": rule["prefix"]}
