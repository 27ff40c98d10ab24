"""Cross-origin resource sharing: what browsers' pages of other origins may ask of a server.

`envoy.extensions.filters.http.cors.v3.CorsPolicy`, in `typed_per_filter_config["envoy.filters.http.cors"]` of a virtual
host or route. Servers apply it (`meshlib.http.server`, `meshlib.http.wsgi`); a client asks nobody's permission.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.filters import FilterConfig
from meshlib.model.matchers import ALWAYS, NEVER, FractionalPercent, StringMatcher

__all__ = ["CORS_FILTER", "Cors", "CorsPolicy"]

CORS_FILTER = "envoy.filters.http.cors"
"""The name control planes give the filter."""


@dataclass(frozen=True, slots=True)
class Cors(FilterConfig):
    """`envoy.extensions.filters.http.cors.v3.Cors`: the filter itself, which says nothing; the policies do."""


@dataclass(frozen=True, slots=True)
class CorsPolicy(FilterConfig):
    """Which origins may call, and what a browser is told they may do. Empty text and None are "not said".

    `allow_methods`, `allow_headers`, `expose_headers` and `max_age` are the values of the headers of those names.
    `filter_enabled` is the share of requests the policy is applied to; `shadow_enabled` only counts, where the policy
    is not applied. `forward_not_matching_preflights` (Envoy: true) lets the application answer a preflight from an
    origin that is not allowed; false answers it here, with nothing allowed.
    """

    allow_origins: tuple[StringMatcher, ...] = ()
    allow_methods: str = ""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    allow_credentials: bool | None = None
    allow_private_network_access: bool | None = None
    forward_not_matching_preflights: bool | None = None
    filter_enabled: FractionalPercent = ALWAYS
    shadow_enabled: FractionalPercent = NEVER
