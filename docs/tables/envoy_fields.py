"""What becomes of every field of Envoy's resources, from the `Fields` the decoders check each message against."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool

from meshlib.sources.files.type_registry import message_class
from meshlib.sources.xds import decode
from meshlib.sources.xds.decode import matchers
from meshlib.sources.xds.decode.added_fields import newest
from meshlib.sources.xds.decode.context import NOT_APPLIED, Fields
from tables import markdown

_CORE, _ROUTE, _CLUSTER = "envoy.config.core.v3", "envoy.config.route.v3", "envoy.config.cluster.v3"
_LISTENER, _ENDPOINT = "envoy.config.listener.v3", "envoy.config.endpoint.v3"
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3"
_FILTERS, _LB = "envoy.extensions.filters.http", "envoy.extensions.load_balancing_policies"
_TLS = "envoy.extensions.transport_sockets.tls.v3"
_CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
# (message, the decoder's module and the name of its Fields there), in the order of a configuration.
MESSAGES: tuple[tuple[str, str], ...] = (
    (f"{_LISTENER}.Listener", "listener._LISTENER"),
    (f"{_LISTENER}.FilterChain", "filter_chain._CHAIN"),
    (f"{_HCM}.HttpConnectionManager", "connection_manager._HCM"),
    (f"{_CORE}.HttpProtocolOptions", "connection_manager._COMMON"),
    (f"{_HCM}.Rds", "connection_manager._RDS"),
    (f"{_HCM}.ScopedRoutes", "scoped_routes._SCOPED_ROUTES"),
    (f"{_HCM}.ScopedRds", "scoped_routes._SCOPED_RDS"),
    (f"{_ROUTE}.ScopedRouteConfiguration", "scoped_routes._SCOPE"),
    (f"{_HCM}.HttpFilter", "filters._HTTP_FILTER"),
    (f"{_ROUTE}.FilterConfig", "filters._FILTER_CONFIG"),
    (f"{_FILTERS}.router.v3.Router", "filters._ROUTER"),
    (f"{_FILTERS}.adaptive_concurrency.v3.AdaptiveConcurrency", "shedding._ADAPTIVE"),
    (f"{_FILTERS}.adaptive_concurrency.v3.GradientControllerConfig", "shedding._GRADIENT"),
    (
        f"{_FILTERS}.adaptive_concurrency.v3.GradientControllerConfig.ConcurrencyLimitCalculationParams",
        "shedding._LIMIT",
    ),
    (f"{_FILTERS}.adaptive_concurrency.v3.GradientControllerConfig.MinimumRTTCalculationParams", "shedding._MIN_RTT"),
    (f"{_FILTERS}.admission_control.v3.AdmissionControl", "shedding._ADMISSION"),
    (f"{_FILTERS}.admission_control.v3.AdmissionControl.SuccessCriteria", "shedding._CRITERIA"),
    (f"{_CORE}.RuntimeDouble", "shedding._RUNTIME_VALUE"),
    (f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit", "local_rate_limit._LOCAL_RATE_LIMIT"),
    ("envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor", "local_rate_limit._DESCRIPTOR"),
    (f"{_ROUTE}.RateLimit", "rate_limits._RATE_LIMIT"),
    (f"{_FILTERS}.cors.v3.CorsPolicy", "cors._POLICY"),
    (f"{_FILTERS}.fault.v3.HTTPFault", "fault._FAULT"),
    (f"{_FILTERS}.fault.v3.FaultAbort", "fault._ABORT"),
    ("envoy.extensions.filters.common.fault.v3.FaultDelay", "fault._DELAY"),
    ("envoy.extensions.filters.common.fault.v3.FaultRateLimit", "fault._RATE_LIMIT"),
    (f"{_FILTERS}.header_mutation.v3.HeaderMutation", "header_mutation._FILTER"),
    (f"{_FILTERS}.header_mutation.v3.Mutations", "header_mutation._MUTATIONS"),
    ("envoy.config.common.mutation_rules.v3.HeaderMutation", "header_mutation._HEADER"),
    (f"{_CORE}.KeyValueMutation", "header_mutation._PARAMETER"),
    (f"{_FILTERS}.ratelimit.v3.RateLimit", "global_rate_limit._FILTER"),
    (f"{_FILTERS}.ratelimit.v3.RateLimitPerRoute", "global_rate_limit._PER_ROUTE"),
    ("envoy.config.ratelimit.v3.RateLimitServiceConfig", "global_rate_limit._SERVICE"),
    (f"{_CORE}.GrpcService", "grpc_service._GRPC_SERVICE"),
    (f"{_CORE}.GrpcService.EnvoyGrpc", "grpc_service._ENVOY_GRPC"),
    (f"{_CORE}.GrpcService.GoogleGrpc", "grpc_service._GOOGLE_GRPC"),
    (f"{_CORE}.GrpcService.GoogleGrpc.ChannelCredentials", "grpc_service._CHANNEL"),
    (f"{_CORE}.GrpcService.GoogleGrpc.SslCredentials", "grpc_service._SSL"),
    (f"{_FILTERS}.rate_limit_quota.v3.RateLimitQuotaFilterConfig", "rate_limit_quota._FILTER"),
    (f"{_FILTERS}.rate_limit_quota.v3.RateLimitQuotaOverride", "rate_limit_quota._OVERRIDE"),
    (f"{_FILTERS}.rate_limit_quota.v3.RateLimitQuotaBucketSettings", "rate_limit_quota._SETTINGS"),
    (
        f"{_FILTERS}.rate_limit_quota.v3.RateLimitQuotaBucketSettings.DenyResponseSettings",
        "rate_limit_quota._DENY",
    ),
    (f"{_FILTERS}.stateful_session.v3.StatefulSession", "session._SESSION"),
    (f"{_FILTERS}.stateful_session.v3.StatefulSessionPerRoute", "session._PER_ROUTE"),
    ("envoy.type.http.v3.Cookie", "session._COOKIE_FIELDS"),
    (f"{_ROUTE}.RouteConfiguration", "route._ROUTE_CONFIGURATION"),
    (f"{_ROUTE}.VirtualHost", "route._VIRTUAL_HOST"),
    (f"{_ROUTE}.VirtualCluster", "route._VIRTUAL_CLUSTER"),
    (f"{_ROUTE}.Route", "route._ROUTE"),
    (f"{_ROUTE}.RouteAction", "route_action._ROUTE_ACTION"),
    (f"{_ROUTE}.RouteAction.MaxStreamDuration", "timeouts._MAX_STREAM_DURATION"),
    (f"{_ROUTE}.WeightedCluster", "cluster_specifier._WEIGHTED_CLUSTERS"),
    (f"{_ROUTE}.WeightedCluster.ClusterWeight", "cluster_specifier._CLUSTER_WEIGHT"),
    (f"{_CORE}.Metadata", "cluster_specifier._METADATA_MATCH"),
    (f"{_ROUTE}.ClusterSpecifierPlugin", "cluster_specifier._PLUGIN"),
    (f"{_ROUTE}.RouteAction.HashPolicy.Cookie", "hash_policy._COOKIE"),
    (f"{_ROUTE}.RouteAction.RequestMirrorPolicy", "mirror._POLICY"),
    (f"{_ROUTE}.InternalRedirectPolicy", "internal_redirect._POLICY"),
    (f"{_ROUTE}.RetryPolicy", "retry._POLICY"),
    (f"{_ROUTE}.RetryPolicy.RetryBackOff", "retry._BACK_OFF"),
    (f"{_ROUTE}.RetryPolicy.RateLimitedRetryBackOff", "retry._RATE_LIMITED"),
    ("envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig", "retry._METADATA_MATCH"),
    (f"{_ROUTE}.HedgePolicy", "retry._HEDGE"),
    (f"{_ROUTE}.RedirectAction", "route_answers._REDIRECT"),
    (f"{_ROUTE}.DirectResponseAction", "route_answers._DIRECT_RESPONSE"),
    (f"{_CORE}.SubstitutionFormatString", "route_answers._BODY_FORMAT"),
    (f"{_CORE}.HeaderValueOption", "common._HEADER_OPTION"),
    (f"{_CORE}.RuntimeFractionalPercent", "common._RUNTIME_FRACTION"),
    (f"{_CORE}.RuntimeFractionalPercent", "mirror._FRACTION"),
    (f"{_CORE}.RuntimeFractionalPercent", "local_rate_limit._FRACTION"),
    ("envoy.service.runtime.v3.Runtime", "runtime._RUNTIME"),
    ("envoy.type.matcher.v3.RegexMatcher", "regex._MATCHER"),
    ("envoy.type.matcher.v3.RegexMatchAndSubstitute", "regex._REWRITE"),
    (f"{_CLUSTER}.Cluster", "cluster._CLUSTER"),
    (f"{_CLUSTER}.Cluster.EdsClusterConfig", "cluster._EDS"),
    (f"{_CLUSTER}.Cluster.OriginalDstLbConfig", "cluster._ORIGINAL_DST"),
    (f"{_CLUSTER}.Cluster.CommonLbConfig", "cluster._COMMON_LB"),
    (f"{_CLUSTER}.Cluster.CommonLbConfig.ConsistentHashingLbConfig", "lb._CONSISTENT_HASHING"),
    (f"{_CLUSTER}.Cluster.LbSubsetConfig", "lb_subset._SUBSET"),
    (f"{_CLUSTER}.Cluster.LbSubsetConfig.LbSubsetSelector", "lb_subset._SELECTOR"),
    ("envoy.extensions.clusters.dns.v3.DnsCluster", "dns._EXTENSION"),
    (_CARES, "dns._RESOLVER"),
    (f"{_CORE}.DnsResolverOptions", "dns._OPTIONS"),
    (f"{_LB}.round_robin.v3.RoundRobin", "lb_load._ROUND_ROBIN"),
    (f"{_LB}.least_request.v3.LeastRequest", "lb_load._LEAST_REQUEST"),
    (f"{_LB}.common.v3.SlowStartConfig", "lb_load._SLOW_START"),
    (f"{_CORE}.RuntimeDouble", "lb_load._AGGRESSION"),
    (f"{_LB}.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", "lb_load._CLIENT_SIDE"),
    (f"{_LB}.peak_ewma.v3.PeakEwma", "lb_load._PEAK_EWMA"),
    (f"{_LB}.random.v3.Random", "lb_extension._RANDOM"),
    (f"{_LB}.pick_first.v3.PickFirst", "lb_extension._PICK_FIRST"),
    (f"{_LB}.ring_hash.v3.RingHash", "lb._RING_HASH"),
    (f"{_LB}.maglev.v3.Maglev", "lb._MAGLEV"),
    (f"{_LB}.override_host.v3.OverrideHost", "lb_extension._OVERRIDE_HOST"),
    (f"{_LB}.random_subsetting.v3.RandomSubsetting", "lb_extension._SUBSETTING"),
    (f"{_LB}.wrr_locality.v3.WrrLocality", "lb_extension._WRR_LOCALITY"),
    (f"{_LB}.load_aware_locality.v3.LoadAwareLocality", "lb_locality._LOAD_AWARE"),
    (f"{_LB}.common.v3.LocalityLbConfig", "lb_locality._LOCALITY_LB"),
    (f"{_LB}.common.v3.LocalityLbConfig.ZoneAwareLbConfig", "lb_locality._ZONE_AWARE"),
    (f"{_CLUSTER}.CircuitBreakers", "protection._BREAKERS"),
    (f"{_CLUSTER}.CircuitBreakers.Thresholds", "protection._THRESHOLDS"),
    (f"{_CLUSTER}.CircuitBreakers.Thresholds", "protection._PER_HOST"),
    (f"{_CLUSTER}.CircuitBreakers.Thresholds.RetryBudget", "protection._RETRY_BUDGET"),
    (f"{_CLUSTER}.OutlierDetection", "outlier._DETECTION"),
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions.OutlierDetection", "outlier._ERRORS"),
    ("envoy.config.common.matcher.v3.MatchPredicate", "outlier._PREDICATE"),
    (f"{_CORE}.HealthCheck", "health._HEALTH_CHECK"),
    (f"{_CORE}.HealthCheck.HttpHealthCheck", "health._HTTP"),
    (f"{_CORE}.HealthCheck.TcpHealthCheck", "health._TCP"),
    (f"{_CORE}.ProxyProtocolConfig", "health._PROXY"),
    (f"{_CORE}.HealthCheck.GrpcHealthCheck", "health._GRPC"),
    (f"{_CORE}.HealthCheck.TlsOptions", "health._TLS"),
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "upstream_http._OPTIONS"),
    (f"{_CORE}.HttpProtocolOptions", "upstream_http._COMMON"),
    (f"{_CORE}.UpstreamHttpProtocolOptions", "upstream_http._UPSTREAM"),
    (f"{_CLUSTER}.Cluster.TransportSocketMatch", "tls._MATCH"),
    (f"{_TLS}.UpstreamTlsContext", "tls._CONTEXT"),
    (f"{_TLS}.CommonTlsContext", "tls._COMMON"),
    (f"{_TLS}.TlsParameters", "tls._PARAMETERS"),
    (f"{_TLS}.CommonTlsContext.CombinedCertificateValidationContext", "tls._COMBINED"),
    (f"{_TLS}.CertificateProviderPluginInstance", "tls._INSTANCE"),
    (f"{_TLS}.TlsCertificate", "tls._CERTIFICATE"),
    (f"{_TLS}.CertificateValidationContext", "tls._VALIDATION"),
    (f"{_ENDPOINT}.ClusterLoadAssignment", "endpoint._ASSIGNMENT"),
    (f"{_ENDPOINT}.LocalityLbEndpoints", "endpoint._LOCALITY"),
    (f"{_ENDPOINT}.ClusterLoadAssignment.Policy", "endpoint._POLICY"),
)
_WHERE = {
    "connection_manager._COMMON": " (of a listener)",
    "upstream_http._COMMON": " (of a cluster)",
    "mirror._FRACTION": " (of a mirror policy)",
    "local_rate_limit._FRACTION": " (of a local rate limit)",
}
_EMPTY = {"context.NOTHING", "upstream_http.NOTHING"}  # for messages of which every field is reported


def tables() -> str:
    """A section per message: applied, of no consequence, left out and what happens instead."""
    known = dict(_decoders())
    markdown.complete("MESSAGES", known.keys() - _EMPTY, [where for _, where in MESSAGES])
    for name, _ in MESSAGES:
        message_class(name)  # imports it
    pool = descriptor_pool.Default()
    sections = [_section(newest(pool.FindMessageTypeByName(name)), known[where], where) for name, where in MESSAGES]
    return "\n\n".join([*sections, _route_match(newest(pool.FindMessageTypeByName(f"{_ROUTE}.RouteMatch")))])


def _decoders() -> Iterator[tuple[str, Fields]]:
    for info in pkgutil.iter_modules(decode.__path__):
        module = importlib.import_module(f"{decode.__name__}.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, Fields):
                yield f"{info.name}.{name}", value


def _section(message: Any, known: Fields, where: str) -> str:
    every = [field.name for field in message.fields]
    strangers = (set(known.honoured) | known.harmless.keys()) - set(every)
    # Envoy's older fields go on under their old message; the decoder of the newer one takes them too.
    own = [name for name in every if name in known.honoured]
    harmless = [name for name in every if name in known.harmless]
    instead = [name for name in every if name in known.instead]
    rest = [name for name in every if name not in {*own, *harmless, *instead}]
    rows = [("taken", markdown.code([*own, *sorted(strangers & known.honoured)]))]
    rows += [(f"nothing to apply: {reason}", markdown.code(names)) for reason, names in _by_reason(harmless, known)]
    rows += [(f"reported: {known.instead[name]}", f"`{name}`") for name in instead]
    if rest:
        rows.append((f"reported: {NOT_APPLIED}", markdown.code(rest)))
    title = f"### {message.full_name.rpartition('.v3.')[2]}{_WHERE.get(where, '')}"
    return f"{title}\n\n`{message.full_name}`\n\n" + markdown.table(("what happens", "fields"), rows)


def _route_match(message: Any) -> str:
    """The one message whose unknown fields drop their owner: a matcher left out would let more requests through."""
    every = [field.name for field in message.fields]
    known = matchers._ROUTE_MATCH
    rows = [
        ("taken", markdown.code(name for name in every if name in known)),
        ("reported, and the route is left out", markdown.code(name for name in every if name not in known)),
    ]
    return f"### RouteMatch\n\n`{message.full_name}`\n\n" + markdown.table(("what happens", "fields"), rows)


def _by_reason(names: list[str], known: Fields) -> list[tuple[str, list[str]]]:
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(known.harmless[name], []).append(name)
    return list(grouped.items())
