"""RouteConfiguration → VirtualHost → Route (`envoy.config.route.v3`). Durations are float seconds, `None` is "off"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.model.filters import PerFilterConfig
from meshlib.model.headers import NO_MUTATIONS, HeaderMutations
from meshlib.model.matcher_tree import Matcher
from meshlib.model.matchers import HeaderMatcher, RegexRewrite, RouteMatch
from meshlib.model.metadata import EMPTY_METADATA, EMPTY_STRUCT, Metadata, Struct
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.rate_limits import RateLimit
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.retry import GrpcTimeout, RetryPolicy

__all__ = [
    "DEFAULT_ROUTE_TIMEOUT",
    "Action",
    "ClusterHeader",
    "ClusterSpecifier",
    "DirectResponseAction",
    "HashPolicy",
    "HostRewrite",
    "JsonFormat",
    "MatchedCluster",
    "NonForwardingAction",
    "RedirectAction",
    "RetryPolicy",
    "Route",
    "RouteAction",
    "RouteConfiguration",
    "RoutingPriority",
    "TextFormat",
    "VirtualCluster",
    "VirtualHost",
    "WeightedCluster",
    "WeightedClusters",
]

DEFAULT_ROUTE_TIMEOUT = 15.0
RoutingPriority = Literal["DEFAULT", "HIGH"]


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """One way to make the request hash. `kind` says which of the fields count:

    `header` (name, optional `regex_rewrite`), `cookie` (name, `ttl` None = only read, 0 = session, `path`, further
    `attributes` of a cookie that is made), `query_parameter` (name), `source_ip`, `filter_state` (name: the
    object's key; `io.grpc.channel_id` is every gRPC channel's own, as in gRFC A42). A `terminal` policy that yields a
    hash ends the list.
    """

    kind: Literal["header", "cookie", "query_parameter", "source_ip", "filter_state"]
    name: str = ""
    terminal: bool = False
    regex_rewrite: RegexRewrite | None = None
    ttl: float | None = None
    path: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One share of a `WeightedClusters`; header mutations of the share are applied before the route's own.

    With `cluster_header` the share's cluster is named by that request header, and `name` is empty.
    """

    name: str
    weight: int
    metadata_match: Struct = EMPTY_STRUCT
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    host_rewrite_literal: str = ""
    typed_per_filter_config: tuple[PerFilterConfig, ...] = ()
    cluster_header: str = ""


@dataclass(frozen=True, slots=True)
class WeightedClusters:
    """Traffic splitting: shares proportional to `weight`; the sum is at least 1 and at most 2**32 - 1.

    Chance decides, or what stands in its place: the number in the request header `header_name`, where there is one, or
    the hash of the route's hash policies (`use_hash_policy`). Either keeps equal requests on one share.
    """

    clusters: tuple[WeightedCluster, ...]
    header_name: str = ""
    use_hash_policy: bool = False


@dataclass(frozen=True, slots=True)
class ClusterHeader:
    """The cluster is named by a request header; without the header there is no route to a cluster (NC)."""

    name: str


@dataclass(frozen=True, slots=True)
class MatchedCluster:
    """The cluster is what a matcher leads to (`envoy.router.cluster_specifier_plugin.matcher`); where it leads nowhere
    there is no route to a cluster (NC).
    """

    matcher: Matcher[str]


ClusterSpecifier = str | WeightedClusters | ClusterHeader | MatchedCluster


@dataclass(frozen=True, slots=True)
class HostRewrite:
    """What becomes of the authority. `literal`: `value`; `header`: from the header `value`; `auto`: the endpoint's
    hostname; `path_regex`: from the path by `regex`; `format`: `value` with its `%...%` formatters filled in.
    """

    kind: Literal["literal", "header", "auto", "path_regex", "format"]
    value: str = ""
    regex: RegexRewrite | None = None


@dataclass(frozen=True, slots=True)
class RouteAction:
    """Send the request to a cluster. `timeout` covers the whole call including retries (Envoy: 15 s; None = off).

    `idle_timeout` and `max_stream_duration`: None takes the connection manager's, 0 switches it off for this route. A
    `max_stream_duration` of the route, also 0, takes the place of `timeout`, as in Envoy.

    `metadata_match` chooses a subset of the cluster's endpoints (namespace `envoy.lb`).
    At most one of the path rewrites is set: `prefix_rewrite`, `regex_rewrite`, `path_template_rewrite` (of a route that
    matches by uri template), `path_rewrite` (a text with `%...%` formatters).
    `retry_policy=None` takes the virtual host's. Without `request_mirror_policies` the virtual host's count, then the
    route configuration's. `internal_redirect` None: redirect responses are the caller's.
    `rate_limits` make the descriptors that rate limit filters ask; `include_vh_rate_limits`: beside the virtual host's.
    """

    cluster: ClusterSpecifier
    timeout: float | None = DEFAULT_ROUTE_TIMEOUT
    idle_timeout: float | None = None
    max_stream_duration: float | None = None
    grpc_timeout: GrpcTimeout | None = None
    retry_policy: RetryPolicy | None = None
    hedge_on_per_try_timeout: bool | None = None
    hash_policies: tuple[HashPolicy, ...] = ()
    metadata_match: Struct = EMPTY_STRUCT
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    path_template_rewrite: str = ""
    path_rewrite: str = ""
    host_rewrite: HostRewrite | None = None
    append_x_forwarded_host: bool = False
    priority: RoutingPriority = "DEFAULT"
    cluster_not_found_response_code: int = 503
    request_mirror_policies: tuple[RequestMirrorPolicy, ...] = ()
    internal_redirect: InternalRedirectPolicy | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    include_vh_rate_limits: bool = False


@dataclass(frozen=True, slots=True)
class TextFormat:
    """`SubstitutionFormatString.text_format`: what has no value is `-`, or nothing with `omit_empty`."""

    text: str
    omit_empty: bool = False


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """`SubstitutionFormatString.json_format`: a JSON object whose strings may hold `%...%` formatters.

    With `omit_empty` what has no value is left out; else it is null.
    """

    template: Struct
    omit_empty: bool = False


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
    """Answer from configuration, without an upstream.

    With `body_format` the body is made of it (`%LOCAL_REPLY_BODY%` is `body`); `content_type` is then the response's,
    if it says one.
    """

    status: int
    body: bytes = b""
    body_format: TextFormat | JsonFormat | None = None
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class NonForwardingAction:
    """Server side only: the application itself handles the request."""


Action = RouteAction | RedirectAction | DirectResponseAction | NonForwardingAction


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of a virtual host; the first whose `match` holds decides. `request_body_buffer_limit`: a longer body is
    sent, and not sent again; None takes the virtual host's. `circuit_breaker`: its own, beside the cluster's.
    """

    match: RouteMatch
    action: Action
    name: str = ""
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    typed_per_filter_config: tuple[PerFilterConfig, ...] = ()
    metadata: Metadata = EMPTY_METADATA
    request_body_buffer_limit: int | None = None
    circuit_breaker: CircuitBreaker | None = None


@dataclass(frozen=True, slots=True)
class VirtualCluster:
    """A name for the requests of a virtual host that all the `headers` fit; the first that fits counts, and a request
    that none fits is of `other`. It is for people: nothing is routed by it.
    """

    name: str
    headers: tuple[HeaderMatcher, ...]


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """`domains`: exact > longest `*suffix` > longest `prefix*` > `*`, compared without case.

    With a `matcher` the routes are not tried in turn: its actions name, by their indexes, those that are.
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    retry_policy: RetryPolicy | None = None
    require_tls: Literal["NONE", "EXTERNAL_ONLY", "ALL"] = "NONE"
    include_request_attempt_count: bool = False
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    typed_per_filter_config: tuple[PerFilterConfig, ...] = ()
    matcher: Matcher[tuple[int, ...]] | None = None
    hedge_on_per_try_timeout: bool = False
    include_attempt_count_in_response: bool = False
    include_is_timeout_retry_header: bool = False
    request_body_buffer_limit: int | None = None
    request_mirror_policies: tuple[RequestMirrorPolicy, ...] = ()
    metadata: Metadata = EMPTY_METADATA
    virtual_clusters: tuple[VirtualCluster, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """`envoy.config.route.v3.RouteConfiguration`. A domain stands in at most one virtual host (checked at decode).

    With `vhds` there are virtual hosts that come when a call wants them.
    """

    name: str
    virtual_hosts: tuple[VirtualHost, ...] = ()
    request_headers: HeaderMutations = NO_MUTATIONS
    response_headers: HeaderMutations = NO_MUTATIONS
    most_specific_header_mutations_wins: bool = False
    ignore_port_in_host_matching: bool = False
    typed_per_filter_config: tuple[PerFilterConfig, ...] = field(default=())
    request_mirror_policies: tuple[RequestMirrorPolicy, ...] = ()
    vhds: bool = False
