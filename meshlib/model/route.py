"""RouteConfiguration → VirtualHost → Route (`envoy.config.route.v3`). Durations are float seconds, `None` is "off"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meshlib.model.filters import PerFilterConfig
from meshlib.model.headers import NO_MUTATIONS, HeaderMutations
from meshlib.model.matchers import RegexRewrite, RouteMatch
from meshlib.model.metadata import EMPTY_STRUCT, Struct

__all__ = [
    "DEFAULT_ROUTE_TIMEOUT",
    "Action",
    "ClusterHeader",
    "ClusterSpecifier",
    "DirectResponseAction",
    "HashPolicy",
    "HostRewrite",
    "NonForwardingAction",
    "RedirectAction",
    "RetryPolicy",
    "Route",
    "RouteAction",
    "RouteConfiguration",
    "RoutingPriority",
    "VirtualHost",
    "WeightedCluster",
    "WeightedClusters",
]

DEFAULT_ROUTE_TIMEOUT = 15.0
RoutingPriority = Literal["DEFAULT", "HIGH"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`envoy.config.route.v3.RetryPolicy`.

    The n-th back-off is drawn uniformly from `[0, 2**(n-1) * base_interval)`, capped at `max_interval`
    (Envoy: 25 ms, 10 x base). `previous_hosts` is the retry host predicate of that name; the balancer is asked up to
    `host_selection_retry_max_attempts` more times.
    """

    retry_on: tuple[str, ...] = ()
    num_retries: int = 1
    per_try_timeout: float | None = None
    per_try_idle_timeout: float | None = None
    retriable_status_codes: tuple[int, ...] = ()
    base_interval: float = 0.025
    max_interval: float = 0.25
    previous_hosts: bool = False
    host_selection_retry_max_attempts: int = 1


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """One way to make the request hash. `kind` says which of the fields count:

    `header` (name, optional `regex_rewrite`), `cookie` (name, `ttl` None = only read, 0 = session, `path`),
    `query_parameter` (name), `source_ip`, `filter_state` (name). A `terminal` policy that yields a hash ends the list.
    """

    kind: Literal["header", "cookie", "query_parameter", "source_ip", "filter_state"]
    name: str = ""
    terminal: bool = False
    regex_rewrite: RegexRewrite | None = None
    ttl: float | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One share of a `WeightedClusters`; header mutations of the share are applied before the route's own."""

    name: str
    weight: int
    metadata_match: Struct = EMPTY_STRUCT
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    host_rewrite_literal: str = ""
    typed_per_filter_config: tuple[PerFilterConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightedClusters:
    """Traffic splitting: shares proportional to `weight`; the sum is at least 1 and at most 2**32 - 1."""

    clusters: tuple[WeightedCluster, ...]


@dataclass(frozen=True, slots=True)
class ClusterHeader:
    """The cluster is named by a request header; without the header there is no route to a cluster (NC)."""

    name: str


ClusterSpecifier = str | WeightedClusters | ClusterHeader


@dataclass(frozen=True, slots=True)
class HostRewrite:
    """What becomes of the authority. `literal`: `value`; `header`: from the header `value`; `auto`: the endpoint's
    hostname; `path_regex`: from the path by `regex`.
    """

    kind: Literal["literal", "header", "auto", "path_regex"]
    value: str = ""
    regex: RegexRewrite | None = None


@dataclass(frozen=True, slots=True)
class RouteAction:
    """Send the request to a cluster. `timeout` covers the whole call including retries (Envoy: 15 s; None = off).

    `idle_timeout` and `max_stream_duration`: None takes the connection manager's, 0 switches it off for this route. A
    `max_stream_duration` of the route, also 0, takes the place of `timeout`, as in Envoy.

    `metadata_match` chooses a subset of the cluster's endpoints (namespace `envoy.lb`).
    `retry_policy=None` takes the virtual host's.
    """

    cluster: ClusterSpecifier
    timeout: float | None = DEFAULT_ROUTE_TIMEOUT
    idle_timeout: float | None = None
    max_stream_duration: float | None = None
    retry_policy: RetryPolicy | None = None
    hash_policies: tuple[HashPolicy, ...] = ()
    metadata_match: Struct = EMPTY_STRUCT
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    host_rewrite: HostRewrite | None = None
    append_x_forwarded_host: bool = False
    priority: RoutingPriority = "DEFAULT"
    cluster_not_found_response_code: int = 503


@dataclass(frozen=True, slots=True)
class RedirectAction:
    """Answer with a redirect; empty parts are taken from the request (`envoy.config.route.v3.RedirectAction`)."""

    response_code: int = 301
    https_redirect: bool = False
    scheme_redirect: str = ""
    host_redirect: str = ""
    port_redirect: int | None = None
    path_redirect: str = ""
    prefix_rewrite: str | None = None
    regex_rewrite: RegexRewrite | None = None
    strip_query: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponseAction:
    """Answer from configuration, without an upstream."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class NonForwardingAction:
    """Server side only: the application itself handles the request."""


Action = RouteAction | RedirectAction | DirectResponseAction | NonForwardingAction


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of a virtual host; the first whose `match` holds decides."""

    match: RouteMatch
    action: Action
    name: str = ""
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    typed_per_filter_config: tuple[PerFilterConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """`domains`: exact > longest `*suffix` > longest `prefix*` > `*`, compared without case."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    retry_policy: RetryPolicy | None = None
    require_tls: Literal["NONE", "EXTERNAL_ONLY", "ALL"] = "NONE"
    include_request_attempt_count: bool = False
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    typed_per_filter_config: tuple[PerFilterConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """`envoy.config.route.v3.RouteConfiguration`. A domain stands in at most one virtual host (checked at decode)."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...] = ()
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    most_specific_header_mutations_wins: bool = False
    ignore_port_in_host_matching: bool = False
    typed_per_filter_config: tuple[PerFilterConfig, ...] = field(default=())
