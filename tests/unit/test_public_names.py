"""The public names: what is in an `__all__`, nothing else. A change here changes the interface: review it."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from parts.doc_pages import ROOT, blocks

PUBLIC: dict[str, set[str]] = {
    "meshlib": {
        "Attempt",
        "CallError",
        "CallFailure",
        "CircuitBreaker",
        "CircuitOpenError",
        "ClusterNotFoundError",
        "ConfigurationError",
        "Fault",
        "Mesh",
        "MeshError",
        "NoHealthyUpstreamError",
        "NoRouteError",
        "NotReadyError",
        "RateLimitedError",
        "ResponseFlag",
        "SharedRateLimit",
        "UpstreamConnectError",
        "UpstreamOverflowError",
        "UpstreamProtocolError",
        "UpstreamResetError",
        "UpstreamTimeoutError",
        "current_attempt",
        "local_limit",
        "call_metadata",
        "on_lane",
    },
    "meshlib.admin.socket": {"AdminSocket"},
    "meshlib.context": {"CallContext", "CallHead", "call_metadata", "current", "on_lane", "peer", "serving"},
    "meshlib.control.ads_server": {
        "AdsServer",
        "Resource",
        "ResourceStore",
        "SubscribedType",
        "SubscriberInfo",
    },
    "meshlib.control.control_plane": {"Changed", "ControlPlane"},
    "meshlib.decorators": {
        "bulkhead",
        "circuit_breaker",
        "current_failure",
        "fallback",
        "for_tests",
        "hedge",
        "rate_limit",
        "retry",
        "stages_of",
        "timeout",
    },
    "meshlib.decorators.attempt": {"Attempt", "current_attempt"},
    "meshlib.drain": {"Draining"},
    "meshlib.engine.events": {
        "AttemptEnded",
        "BreakerChanged",
        "CallEnded",
        "EndpointEjected",
        "EndpointHealth",
        "EndpointHealthChanged",
        "EndpointReachable",
        "EndpointReturned",
        "EndpointUnreachable",
        "Event",
        "FaultInjected",
        "HealingChanged",
        "HealingState",
        "LoadShed",
        "Observer",
        "PlanChanged",
        "RateLimited",
        "RequestServed",
    },
    "meshlib.engine.faults": {"AddedFault", "Faults"},
    "meshlib.explain": {"Explainer", "Explanation"},
    "meshlib.grpc.aio_server": {"AioServerInterceptor"},
    "meshlib.grpc.load_report_server": {"AioLoadReportInterceptor", "LoadReportInterceptor", "add_load_reports"},
    "meshlib.grpc.secure": {"add_mtls_port", "peer"},
    "meshlib.grpc.server": {"ServerInterceptor"},
    "meshlib.http.drain": {"Drain", "install_all"},
    "meshlib.http.httpx": {"AsyncMeshTransport", "MeshTransport"},
    "meshlib.http.httpx2": {"AsyncMeshTransport", "MeshTransport"},
    "meshlib.http.inbound": {"REQUEST_ID", "Inbound"},
    "meshlib.http.load_reports": {"LoadReportASGI", "LoadReportWSGI"},
    "meshlib.http.server": {"MeshMiddleware", "admit"},
    "meshlib.http.wsgi": {"MeshMiddleware", "admit"},
    "meshlib.http.wire": {
        "Address",
        "AsyncPool",
        "AsyncWireResponse",
        "ConnectionEvent",
        "ConnectionEventKind",
        "FailureKind",
        "Gate",
        "NO_TIMEOUTS",
        "NetworkInfo",
        "PoolLimits",
        "PoolStats",
        "ReaderLimits",
        "SyncPool",
        "SyncWireResponse",
        "Timeouts",
        "WireError",
        "WireRequest",
    },
    "meshlib.integrations.django": {"MeshMiddleware", "async_client", "client", "drain", "mesh"},
    "meshlib.integrations.fastapi": {"MeshMiddleware", "mesh_client"},
    "meshlib.integrations.flask": {"MeshMiddleware", "Meshlib", "async_client", "client", "drain", "mesh"},
    "meshlib.integrations.gunicorn": {"post_worker_init"},
    "meshlib.integrations.uvicorn": {
        "MeshH11Protocol",
        "MeshHttpToolsProtocol",
        "config",
        "run",
        "ssl_context_factory",
    },
    "meshlib.model.fault": {"FAULT_FILTER", "FaultAbort", "FaultDelay", "FaultRateLimit", "HttpFault"},
    "meshlib.policy.fault": {"Fault"},
    "meshlib.testing": {"faults"},
    "meshlib.testing.faults": {"faults"},
    "meshlib.plugins": {"BalancerFactory", "BalancerImportError", "UserBalancer", "find_balancer", "register_balancer"},
    "meshlib.process": {"ProcessMesh"},
    "meshlib.security.peer": {"Peer", "PeerError", "PeerRules"},
    "meshlib.security.spiffe": {"SpiffeId", "SpiffeIdError", "SpiffePattern", "trust_domain"},
    "meshlib.identity": {"Identity", "KeyPair", "Material", "MaterialError", "ServerTls", "TrustBundle", "mtls"},
    "meshlib.identity.dev_ca": {"DevCA", "Issued"},
    "meshlib.integrations.starlette": {"MeshMiddleware"},
    "meshlib.model.circuit_breaker": {"BreakerScope", "CircuitBreaker", "FallbackResponse", "WindowType"},
    "meshlib.model.cluster": {
        "CircuitBreaker",
        "CircuitBreakers",
        "Cluster",
        "ClusterType",
        "ErrorMatcher",
        "LoadBias",
        "OutlierDetection",
        "RetryBudget",
        "Thresholds",
        "TlsMatch",
        "UpstreamTls",
    },
    "meshlib.model.health": {
        "GrpcHealthCheck",
        "HealthCheck",
        "HttpHealthCheck",
        "StatusRange",
        "TcpHealthCheck",
        "When",
    },
    "meshlib.model.lb": {
        "ROUND_ROBIN",
        "ClientSideWeightedRoundRobin",
        "LbPolicy",
        "LbSubsetConfig",
        "LeastRequest",
        "Maglev",
        "OverrideHost",
        "OverrideHostSource",
        "PeakEwma",
        "PickFirst",
        "Random",
        "RandomSubsetting",
        "RingHash",
        "RoundRobin",
        "SlowStart",
        "SubsetSelector",
        "UnsupportedLbPolicy",
        "UserLbPolicy",
        "takes_hash",
    },
    "meshlib.model.dns": {"DEFAULT_DNS", "Dns", "DnsLookupFamily", "RefreshRate"},
    "meshlib.model.zones": {"NOWHERE", "ZONE_AWARE", "LoadAware", "Local", "ZoneAware"},
    "meshlib.resolve.resolver": {"Resolver"},
    "meshlib.model.endpoint": {
        "Address",
        "ClusterLoadAssignment",
        "DropOverload",
        "EndpointHealthCheck",
        "HealthStatus",
        "LbEndpoint",
        "Locality",
        "LocalityLbEndpoints",
    },
    "meshlib.model.filters": {
        "FilterConfig",
        "HttpFilter",
        "LocalRateLimit",
        "LocalRateLimitDescriptor",
        "PerFilterConfig",
        "RouterFilter",
        "TokenBucket",
        "UnsupportedFilter",
    },
    "meshlib.model.cors": {"CORS_FILTER", "Cors", "CorsPolicy"},
    "meshlib.model.global_rate_limit": {
        "DEFAULT_TIMEOUT",
        "GlobalRateLimit",
        "GlobalRateLimitPerRoute",
        "RequestType",
    },
    "meshlib.model.rate_limit_quota": {
        "BucketId",
        "BucketSettings",
        "QuotaStrategy",
        "RateLimitQuota",
        "RateLimitQuotaOverride",
        "RequestsPerTimeUnit",
    },
    "meshlib.model.grpc_service": {"GrpcService", "GrpcTls"},
    "meshlib.model.header_mutation": {"HeaderMutationFilter", "MutationStep"},
    "meshlib.model.headers": {"AppendAction", "HeaderMutations", "HeaderValueOption", "NO_MUTATIONS"},
    "meshlib.model.listener": {"HttpConnectionManager", "Listener", "TrafficDirection"},
    "meshlib.model.limiters": {
        "Bucket",
        "ConcurrencyLimit",
        "LimitHeaders",
        "Limiter",
        "RequestLimit",
        "UniformRate",
        "WarmUp",
    },
    "meshlib.model.rate_limits": {
        "UNIT_SECONDS",
        "Action",
        "Descriptor",
        "DescriptorLimit",
        "DestinationCluster",
        "Entry",
        "GenericKey",
        "HeaderValueMatch",
        "HitsAddend",
        "InputValue",
        "MaskedRemoteAddress",
        "MetadataLimit",
        "MetadataValue",
        "QueryParameterValue",
        "QueryParameterValueMatch",
        "RateLimit",
        "RemoteAddress",
        "RemoteAddressMatch",
        "RequestHeader",
        "SourceCluster",
        "Unit",
        "VhRateLimits",
        "XRateLimitHeaders",
        "limit_of",
    },
    "meshlib.model.lanes": {"BAGGAGE", "MEMBER", "Lane", "LaneGroup", "LaneRamp", "Nearby", "with_lane"},
    "meshlib.model.context_matchers": {
        "AnyOf",
        "AnyValue",
        "DoubleMatch",
        "FilterStateMatcher",
        "IpRanges",
        "ListHas",
        "MetadataMatcher",
        "TlsContextMatch",
        "ValueMatcher",
    },
    "meshlib.model.matcher_tree": {
        "AllOf",
        "FieldMatcher",
        "Input",
        "MapKind",
        "Matcher",
        "MatcherList",
        "MatcherTree",
        "Not",
        "OnMatch",
        "OneOf",
        "Predicate",
        "SinglePredicate",
        "actions",
    },
    "meshlib.model.runtime": {"RuntimeLayer", "flattened", "layered"},
    "meshlib.model.strings": {"StringMatchKind", "StringMatcher"},
    "meshlib.model.uri_template": {"UriTemplate", "parse_template", "rewrite_parts"},
    "meshlib.model.matchers": {
        "CookieMatcher",
        "ALWAYS",
        "FractionalPercent",
        "HeaderMatcher",
        "Int64Range",
        "NEVER",
        "PathMatchKind",
        "PathMatcher",
        "Present",
        "QueryParameterMatcher",
        "RegexRewrite",
        "RouteMatch",
        "StringMatchKind",
        "StringMatcher",
    },
    "meshlib.load_reports": {"LoadRecorder"},
    "meshlib.model.operators": {
        "COMMAND",
        "KNOWN",
        "NO_VALUE",
        "empty_operators",
        "has_stray_percent",
        "unknown_operators",
    },
    "meshlib.model.orca": {"HEADER", "HEADER_BIN", "LoadReport"},
    "meshlib.model.metadata": {"EMPTY_METADATA", "EMPTY_STRUCT", "Metadata", "Struct", "Value", "freeze"},
    "meshlib.model.mirror": {"RequestMirrorPolicy"},
    "meshlib.model.re2_program": {"MAX_PATTERN_LENGTH", "MAX_PROGRAM_SIZE", "has_re2", "re2_program", "re2_set"},
    "meshlib.model.redirect": {"InternalRedirectPolicy"},
    "meshlib.model.report": {"Issue", "Report", "ResourceError", "in_resource"},
    "meshlib.model.request": {"RawHeaders", "RequestHead", "ServedHead"},
    "meshlib.model.retry": {"GrpcTimeout", "RateLimitedBackOff", "ResetHeader", "RetryPolicy"},
    "meshlib.model.route": {
        "Action",
        "ClusterHeader",
        "ClusterSpecifier",
        "DEFAULT_ROUTE_TIMEOUT",
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
    },
    "meshlib.model.scoped_routes": {"HeaderFragment", "ScopedRouteConfiguration", "ScopedRoutes"},
    "meshlib.model.session": {"SessionCookie", "SessionHeader", "StatefulSession"},
    "meshlib.model.shedding": {
        "AdaptiveConcurrency",
        "AdmissionControl",
        "Bulkhead",
        "Priorities",
        "QueueDeadline",
        "Shedding",
        "shedding",
    },
    "meshlib.model.snapshot": {"Snapshot"},
    "meshlib.registration": {"ConsulRegistration", "HttpCheck", "ServiceDefinition", "TtlCheck"},
    "meshlib.settings": {
        "SETTINGS",
        "SOURCES",
        "Mistake",
        "Setting",
        "configuration_issues",
        "mesh_from_settings",
        "mistakes",
        "server_options",
    },
    "meshlib.sources.base": {"Sink", "Source"},
    "meshlib.sources.consul": {"ConsulSettings", "ConsulSource", "ConsulStats", "consul_source", "load_settings"},
    "meshlib.sources.consul.agent_api": {"ConsulApi"},
    "meshlib.sources.files.source": {"FileSource"},
    "meshlib.sources.static": {
        "ClusterSpec",
        "EndpointSpec",
        "RouteSpec",
        "StaticSource",
        "retry_policy",
        "static_cluster",
        "static_snapshot",
    },
    "meshlib.sources.xds": {
        "Bootstrap",
        "BootstrapError",
        "Credentials",
        "Locality",
        "Node",
        "XdsServer",
        "load_bootstrap",
        "sidecar_node",
    },
    "meshlib.sources.xds.decode": {
        "Decoded",
        "References",
        "Resource",
        "decode",
        "decode_message",
        "references",
    },
    "meshlib.sources.xds.source": {"XdsSource"},
    "meshlib.sources.xds.transport": {"ChannelOptions", "XdsClient"},
    "meshlib.telemetry.instrumentor": {"MeshlibInstrumentor"},
    "meshlib.telemetry.logs": {"TraceFields", "install"},
    "meshlib.telemetry.metrics.prometheus": {"PrometheusCollector"},
}

# (where, module, name): what a page or an example takes from inside, each with its reason.
LOOKS_INSIDE = {
    ("examples/demo/dashboard.py", "meshlib.balancing.base", "Host"),  # the dashboard shows the balancer's own state
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("meshlib", *parts) if parts[0] == "integrations" else parts
    return ".".join(parts).removesuffix(".__init__")


def declared() -> dict[str, set[str]]:
    """Every `__all__` in the tree, by module."""
    found = {}
    for folder in (ROOT / "meshlib", ROOT / "integrations"):
        for path in folder.rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                    found[module_name(path)] = set(ast.literal_eval(node.value))
    return found


def imported(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "meshlib":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("meshlib."))


def shown() -> Iterator[tuple[str, str, str]]:
    """(where, module, name) of everything of meshlib that the documentation and the examples use."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for block in blocks(page):
            if block.language == "python":
                yield from ((f"{page.name}:{block.line}", *name) for name in imported(block.text))
    for path in (ROOT / "examples").rglob("*.py"):
        yield from ((path.relative_to(ROOT).as_posix(), *name) for name in imported(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def every() -> dict[str, set[str]]:
    return declared()


def test_the_public_names_are_those_reviewed(every: dict[str, set[str]]) -> None:
    assert every == PUBLIC


def test_public_names_are_there(every: dict[str, set[str]]) -> None:
    for module, names in every.items():
        found = importlib.import_module(module)
        assert [name for name in names if not hasattr(found, name)] == [], module


def test_public_names_say_what_they_are(every: dict[str, set[str]]) -> None:
    """Classes and functions have a docstring; constants and type aliases have a sentence where they need one."""
    silent = []
    for module, names in every.items():
        found = importlib.import_module(module)
        things = [getattr(found, name) for name in sorted(names)]
        silent += [
            thing.__qualname__ for thing in things if isinstance(thing, type | FunctionType) and not thing.__doc__
        ]
    assert silent == []


def test_the_documentation_and_the_examples_use_public_names_only(every: dict[str, set[str]]) -> None:
    used = [(where, module, name) for where, module, name in shown() if name not in every.get(module, ())]
    assert [use for use in used if use not in LOOKS_INSIDE] == []


def test_the_documentation_shows_the_names_of_the_package(every: dict[str, set[str]]) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    assert [name for name in every["meshlib"] if name not in pages] == []
