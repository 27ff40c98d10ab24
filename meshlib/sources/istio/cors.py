"""`corsPolicy` → the route's configuration of the CORS filter (istiod: `TranslateCORSPolicy`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.sources.istio.fields import seconds_of
from meshlib.sources.istio.route_match import string_matcher

Json = dict[str, Any]

FILTER = "envoy.filters.http.cors"
_TYPE = "type.googleapis.com/envoy.extensions.filters.http.cors.v3."
HTTP_FILTER: Json = {"name": FILTER, "typed_config": {"@type": f"{_TYPE}Cors"}}
_LISTS = ("allowHeaders", "allow_headers"), ("allowMethods", "allow_methods"), ("exposeHeaders", "expose_headers")


def cors_config(policy: Mapping[str, Any]) -> Json:
    """The `typed_per_filter_config` of a route with this policy. Preflights that match no origin go on to the service
    unless they are to be ignored.
    """
    config: Json = {
        "@type": f"{_TYPE}CorsPolicy",
        "filter_enabled": {"default_value": {"numerator": 100}},
        "forward_not_matching_preflights": policy.get("unmatchedPreflights") != "IGNORE",
        "allow_origin_string_match": _origins(policy),
    }
    config |= {field: ",".join(policy[name]) for name, field in _LISTS if policy.get(name)}
    if policy.get("allowCredentials") is not None:
        config["allow_credentials"] = policy["allowCredentials"]
    if policy.get("maxAge") is not None:
        config["max_age"] = str(int(seconds_of(policy["maxAge"]) or 0))
    return {FILTER: config}


def _origins(policy: Mapping[str, Any]) -> list[Json]:
    if policy.get("allowOrigins") is not None:
        return [string_matcher(origin) for origin in policy["allowOrigins"]]
    return [{"exact": origin} for origin in policy.get("allowOrigin") or ()]
