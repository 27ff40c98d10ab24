"""CORS policies: the filter's, by route, and the older fields of virtual hosts and routes, which say the same."""

from __future__ import annotations

from typing import Any

from meshlib.model.cors import CORS_FILTER, Cors, CorsPolicy
from meshlib.model.filters import PerFilterConfig
from meshlib.model.matchers import ALWAYS, NEVER
from meshlib.sources.xds.decode.common import runtime_fraction, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.string_matcher import string_matcher

CORS_TYPE = "envoy.extensions.filters.http.cors.v3.Cors"
CORS_POLICY_TYPE = "envoy.extensions.filters.http.cors.v3.CorsPolicy"
_MODULE = "envoy.extensions.filters.http.cors.v3.cors_pb2"
CORS_MODULES = {CORS_TYPE: _MODULE, CORS_POLICY_TYPE: _MODULE}
_POLICY = fields(
    "allow_origin_string_match",
    "allow_methods",
    "allow_headers",
    "expose_headers",
    "max_age",
    "allow_credentials",
    "filter_enabled",
    "allow_private_network_access",
    "forward_not_matching_preflights",
    harmless={"shadow_enabled": "only counts requests, for a proxy's statistics"},
)


def cors_filter(ctx: Context, message: Any, path: str) -> Cors:
    """The filter, which has no fields."""
    return Cors()


def cors_policy(ctx: Context, message: Any, path: str) -> CorsPolicy:
    """Either message; an origin's matcher that is not supported is left out, and told."""
    ctx.check_fields(message, path, _POLICY)
    origins = []
    for index, item in enumerate(message.allow_origin_string_match):
        try:
            origins.append(string_matcher(ctx, item, f"{join(path, 'allow_origin_string_match')}[{index}]"))
        except UnsupportedError as error:
            ctx.degraded(error.path, f"{error.reason}; origins it would allow are not")

    def share(name: str, default: Any) -> Any:
        return runtime_fraction(ctx, getattr(message, name), join(path, name)) if message.HasField(name) else default

    return CorsPolicy(
        allow_origins=tuple(origins),
        allow_methods=message.allow_methods,
        allow_headers=message.allow_headers,
        expose_headers=message.expose_headers,
        max_age=message.max_age,
        allow_credentials=wrapped(message, "allow_credentials", None),
        allow_private_network_access=wrapped(message, "allow_private_network_access", None),
        forward_not_matching_preflights=wrapped(message, "forward_not_matching_preflights", None),
        filter_enabled=share("filter_enabled", ALWAYS),
        shadow_enabled=share("shadow_enabled", NEVER),
    )


def legacy_cors(ctx: Context, message: Any, path: str) -> tuple[PerFilterConfig, ...]:
    """The field `cors` of a virtual host or RouteAction, where there is one."""
    if not message.HasField("cors"):
        return ()
    return (PerFilterConfig(CORS_FILTER, cors_policy(ctx, message.cors, join(path, "cors"))),)
