"""Every field of every message that is decoded, set alone: it changes the model, or is reported, or is refused.

The few that do none of this are a reviewed list: harmless by nature, each with its reason in the decoder's tables.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage

from meshlib.model.report import ResourceError
from meshlib.sources.xds import decode as decode_package
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.decode.validate import is_repeated
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

Edit = Callable[[Any], None]
Place = tuple[str, Callable[[Any, Edit], None]]


def _fill(message: Any, depth: int = 0) -> Any:
    """The smallest valid content of a message: what its rules require."""
    from validate import validate_pb2

    for oneof in message.DESCRIPTOR.oneofs:
        if oneof.GetOptions().Extensions[validate_pb2.required] and message.WhichOneof(oneof.name) is None:
            _set(message, oneof.fields[0], depth)
    for field in message.DESCRIPTOR.fields:
        rules = field.GetOptions().Extensions[validate_pb2.rules]
        kind = rules.WhichOneof("type")
        needed = (kind and "min_" in str(getattr(rules, kind))) or "required" in str(rules)
        if needed and field.containing_oneof is None:
            _set(message, field, depth)
    return message


def _set(message: Any, field: Any, depth: int = 0) -> None:
    """Give a field a value that is valid and not its default."""
    if depth > 8:
        return
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_map(getattr(message, field.name), field.message_type.fields_by_name["value"], depth)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        if is_repeated(field):
            target = target.add()
        target.SetInParent()
        _content(target, depth)
    elif is_repeated(field):
        getattr(message, field.name).append(_scalar(field))
    else:
        setattr(message, field.name, _scalar(field))


def _set_map(target: Any, value: Any, depth: int) -> None:
    if value.message_type is None:
        target["x"] = _scalar(value)
    else:
        _content(target["x"], depth)


def _content(target: Any, depth: int) -> None:
    name = target.DESCRIPTOR.full_name
    if name == "google.protobuf.Any":
        target.type_url = "type.googleapis.com/test.Unknown"
    elif name == "google.protobuf.Duration":
        target.seconds = 3
    elif name == "google.protobuf.Struct":
        target["a"] = 1
    elif name.startswith("google.protobuf.") and "value" in target.DESCRIPTOR.fields_by_name:
        target.value = _scalar(target.DESCRIPTOR.fields_by_name["value"])
    else:
        _fill(target, depth + 1)


def _scalar(field: Any) -> Any:
    if field.enum_type is not None:
        return 1
    if field.cpp_type == field.CPPTYPE_STRING:
        return b"x" if field.type == field.TYPE_BYTES else "x"
    return True if field.cpp_type == field.CPPTYPE_BOOL else 7


# Where each message stands: a base resource, and the way to the message inside it -----------------------------------


def _base(type_url: str, **changes: Any) -> Any:
    resource = {
        CLUSTER: xds.eds_cluster,
        ROUTE_CONFIGURATION: xds.route_configuration,
        LISTENER: xds.api_listener,
        CLUSTER_LOAD_ASSIGNMENT: xds.assignment,
    }[type_url]()
    return xds.message(type_url, {**resource, **changes})


def _in_any(holder: Any, cls: Any, edit: Edit) -> None:
    inner = cls()
    holder.Unpack(inner)
    edit(inner)
    holder.Pack(inner)


def _manager(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as pb

    _in_any(message.api_listener.api_listener, pb.HttpConnectionManager, edit)


def _before_router(message: Any, config: Any, edit: Edit) -> None:
    def insert(manager: Any) -> None:
        edit(config)
        router = manager.http_filters.pop()
        manager.http_filters.add(name="one").typed_config.Pack(config)
        manager.http_filters.append(router)

    _manager(message, insert)


def _rate_limit(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2 as pb

    _before_router(message, pb.LocalRateLimit(stat_prefix="limit"), edit)


def _adaptive(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.http.adaptive_concurrency.v3 import adaptive_concurrency_pb2 as pb

    config = pb.AdaptiveConcurrency()
    config.gradient_controller_config.concurrency_limit_params.concurrency_update_interval.nanos = 100_000_000
    config.gradient_controller_config.min_rtt_calc_params.interval.seconds = 60
    _before_router(message, config, edit)


def _admission(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.http.admission_control.v3 import admission_control_pb2 as pb

    config = pb.AdmissionControl()
    config.success_criteria.SetInParent()
    _before_router(message, config, edit)


def _fault(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.http.fault.v3 import fault_pb2 as pb

    def insert(manager: Any) -> None:
        config = pb.HTTPFault()
        edit(config)
        router = manager.http_filters.pop()
        manager.http_filters.add(name="fault").typed_config.Pack(config)
        manager.http_filters.append(router)

    _manager(message, insert)


def _global_rate_limit(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2 as pb

    def insert(manager: Any) -> None:
        config = pb.RateLimit(domain="shop")
        config.rate_limit_service.grpc_service.envoy_grpc.cluster_name = "limits"
        config.rate_limit_service.transport_api_version = 2
        edit(config)
        router = manager.http_filters.pop()
        manager.http_filters.add(name="limit").typed_config.Pack(config)
        manager.http_filters.append(router)

    _manager(message, insert)


FAULT_PARTS = {
    "delay": {"fixed_delay": "1s"},
    "abort": {"http_status": 503},
    "response_rate_limit": {"fixed_limit": {"limit_kbps": 1}},
}


def _part_of_fault(name: str) -> Place:
    def with_part(fault: Any, edit: Edit) -> None:
        json_format.ParseDict({name: FAULT_PARTS[name]}, fault)
        edit(getattr(fault, name))

    return LISTENER, lambda message, edit: _fault(message, lambda fault: with_part(fault, edit))


def _asked(name: str) -> Callable[[Any, Edit], None]:
    """The service that the filter asks, and what is below `name` of it."""

    def edit_inside(message: Any, edit: Edit) -> None:
        def inside(config: Any) -> None:
            service = config.rate_limit_service.grpc_service
            if name == "google_grpc":
                service.google_grpc.target_uri = "limits:8081"
                service.google_grpc.stat_prefix = "limits"
            edit(getattr(service, name) if name else service)

        _global_rate_limit(message, inside)

    return edit_inside


def _limit_of_route(message: Any, edit: Edit) -> None:
    from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2 as pb

    config = pb.RateLimitPerRoute()
    edit(config)
    _route(message).typed_per_filter_config["limit"].Pack(config)


def _tls(message: Any, edit: Edit) -> None:
    from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

    context = tls_pb2.UpstreamTlsContext()
    context.common_tls_context.validation_context.trusted_ca.filename = "ca.pem"
    edit(context)
    message.transport_socket.name = "tls"
    message.transport_socket.typed_config.Pack(context)


def _http_options(message: Any, edit: Edit) -> None:
    from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as pb

    options = pb.HttpProtocolOptions()
    options.explicit_http_config.http_protocol_options.SetInParent()
    edit(options)
    message.typed_extension_protocol_options["http"].Pack(options)


def _error_matcher(message: Any, edit: Edit) -> None:
    message.outlier_detection.SetInParent()
    _http_options(message, lambda options: edit(options.outlier_detection.error_matcher))


def _route(message: Any) -> Any:
    return message.virtual_hosts[0].routes[0]


def _weighted(message: Any) -> Any:
    found = _route(message).route.weighted_clusters
    if not found.clusters:
        found.clusters.add(name="a").weight.value = 1
    return found


def _header(message: Any) -> Any:
    headers = _route(message).match.headers
    return headers[0] if headers else headers.add(name="x-a")


def _lb(policy: str, field: str) -> Callable[[Any], Any]:
    def way(message: Any) -> Any:
        message.lb_policy = message.DESCRIPTOR.enum_types_by_name["LbPolicy"].values_by_name[policy].number
        getattr(message, field).SetInParent()
        return getattr(message, field)

    return way


def _touch(*names: str) -> Callable[[Any], Any]:
    def way(message: Any) -> Any:
        for name in names:
            message = getattr(message, name)
        message.SetInParent()
        return message

    return way


def _at(type_url: str, way: Callable[[Any], Any]) -> Place:
    return type_url, lambda message, edit: edit(way(message))


def _retry(message: Any) -> Any:
    return _touch("retry_policy")(_route(message).route)


def _redirect(message: Any) -> Any:
    return _touch("redirect")(_route(message))


def _threshold(message: Any) -> Any:
    found = message.circuit_breakers.thresholds
    return found[0] if found else found.add()


def _health_check(message: Any) -> Any:
    found = message.health_checks
    if not found:
        made = found.add()
        made.timeout.seconds = made.interval.seconds = 1
        made.healthy_threshold.value = made.unhealthy_threshold.value = 2
        made.http_health_check.path = "/healthz"
    return found[0]


PLACES: dict[str, Place] = {
    "Cluster": _at(CLUSTER, lambda m: m),
    "CommonLbConfig": _at(CLUSTER, _touch("common_lb_config")),
    "CircuitBreakers": _at(CLUSTER, _touch("circuit_breakers")),
    "Thresholds": _at(CLUSTER, _threshold),
    "RetryBudget": _at(CLUSTER, lambda m: _touch("retry_budget")(_threshold(m))),
    "OutlierDetection": _at(CLUSTER, _touch("outlier_detection")),
    "HealthCheck": _at(CLUSTER, _health_check),
    "HttpHealthCheck": _at(CLUSTER, lambda m: _health_check(m).http_health_check),
    "TcpHealthCheck": _at(CLUSTER, lambda m: _touch("tcp_health_check")(_health_check(m))),
    "GrpcHealthCheck": _at(CLUSTER, lambda m: _touch("grpc_health_check")(_health_check(m))),
    "HealthCheckTlsOptions": _at(CLUSTER, lambda m: _touch("tls_options")(_health_check(m))),
    "LbSubsetConfig": _at(CLUSTER, _touch("lb_subset_config")),
    "EdsClusterConfig": _at(CLUSTER, _touch("eds_cluster_config")),
    "RoundRobinLbConfig": _at(CLUSTER, _lb("ROUND_ROBIN", "round_robin_lb_config")),
    "LeastRequestLbConfig": _at(CLUSTER, _lb("LEAST_REQUEST", "least_request_lb_config")),
    "RingHashLbConfig": _at(CLUSTER, _lb("RING_HASH", "ring_hash_lb_config")),
    "MaglevLbConfig": _at(CLUSTER, _lb("MAGLEV", "maglev_lb_config")),
    "UpstreamTlsContext": (CLUSTER, _tls),
    "CommonTlsContext": (CLUSTER, lambda m, edit: _tls(m, lambda c: edit(c.common_tls_context))),
    "CertificateValidationContext": (
        CLUSTER,
        lambda m, edit: _tls(m, lambda c: edit(c.common_tls_context.validation_context)),
    ),
    "HttpProtocolOptions": (CLUSTER, _http_options),
    "MatchPredicate": (CLUSTER, _error_matcher),
    "CommonHttpProtocolOptions": (
        CLUSTER,
        lambda m, edit: _http_options(m, lambda o: edit(_touch("common_http_protocol_options")(o))),
    ),
    "Http2ProtocolOptions": (
        CLUSTER,
        lambda m, edit: _http_options(m, lambda o: edit(_touch("explicit_http_config", "http2_protocol_options")(o))),
    ),
    "RouteConfiguration": _at(ROUTE_CONFIGURATION, lambda m: m),
    "VirtualHost": _at(ROUTE_CONFIGURATION, lambda m: m.virtual_hosts[0]),
    "Route": _at(ROUTE_CONFIGURATION, _route),
    "RouteMatch": _at(ROUTE_CONFIGURATION, lambda m: _route(m).match),
    "HeaderMatcher": _at(ROUTE_CONFIGURATION, _header),
    "RouteAction": _at(ROUTE_CONFIGURATION, lambda m: _route(m).route),
    "WeightedCluster": _at(ROUTE_CONFIGURATION, _weighted),
    "ClusterWeight": _at(ROUTE_CONFIGURATION, lambda m: _weighted(m).clusters[0]),
    "RetryPolicy": _at(ROUTE_CONFIGURATION, _retry),
    "RedirectAction": _at(ROUTE_CONFIGURATION, _redirect),
    "MaxStreamDuration": _at(ROUTE_CONFIGURATION, lambda m: _touch("max_stream_duration")(_route(m).route)),
    "Listener": _at(LISTENER, lambda m: m),
    "HttpConnectionManager": (LISTENER, _manager),
    "LocalRateLimit": (LISTENER, _rate_limit),
    "AdaptiveConcurrency": (LISTENER, _adaptive),
    "GradientController": (
        LISTENER,
        lambda m, edit: _adaptive(m, lambda config: edit(config.gradient_controller_config)),
    ),
    "ConcurrencyLimitCalculationParams": (
        LISTENER,
        lambda m, edit: _adaptive(m, lambda c: edit(c.gradient_controller_config.concurrency_limit_params)),
    ),
    "MinimumRTTCalculationParams": (
        LISTENER,
        lambda m, edit: _adaptive(m, lambda c: edit(c.gradient_controller_config.min_rtt_calc_params)),
    ),
    "AdmissionControl": (LISTENER, _admission),
    "SuccessCriteria": (LISTENER, lambda m, edit: _admission(m, lambda config: edit(config.success_criteria))),
    "HTTPFault": (LISTENER, _fault),
    "FaultDelay": _part_of_fault("delay"),
    "FaultAbort": _part_of_fault("abort"),
    "FaultRateLimit": _part_of_fault("response_rate_limit"),
    "GlobalRateLimit": (LISTENER, _global_rate_limit),
    "GrpcService": (LISTENER, _asked("")),
    "EnvoyGrpc": (LISTENER, _asked("envoy_grpc")),
    "GoogleGrpc": (LISTENER, _asked("google_grpc")),
    "RateLimitPerRoute": (ROUTE_CONFIGURATION, _limit_of_route),
    "ClusterLoadAssignment": _at(CLUSTER_LOAD_ASSIGNMENT, lambda m: m),
    "Policy": _at(CLUSTER_LOAD_ASSIGNMENT, _touch("policy")),
    "LocalityLbEndpoints": _at(CLUSTER_LOAD_ASSIGNMENT, lambda m: m.endpoints[0]),
    "LbEndpoint": _at(CLUSTER_LOAD_ASSIGNMENT, lambda m: m.endpoints[0].lb_endpoints[0]),
    "HealthCheckConfig": _at(
        CLUSTER_LOAD_ASSIGNMENT,
        lambda m: _touch("health_check_config")(m.endpoints[0].lb_endpoints[0].endpoint),
    ),
    "Endpoint": _at(CLUSTER_LOAD_ASSIGNMENT, lambda m: m.endpoints[0].lb_endpoints[0].endpoint),
    "SocketAddress": _at(
        CLUSTER_LOAD_ASSIGNMENT, lambda m: m.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    ),
}

# Says nothing unless something inside it is set, or what was set here is the default.
EMPTY = {
    "LeastRequestLbConfig": {"slow_start_config"},
    "RoundRobinLbConfig": {"slow_start_config"},
    "LbSubsetConfig": {"subset_selectors"},
    "Cluster": {"circuit_breakers", "common_http_protocol_options", "common_lb_config", "round_robin_lb_config"},
    "CommonLbConfig": {"consistent_hashing_lb_config", "zone_aware_lb_config"},
    "CircuitBreakers": {"thresholds", "per_host_thresholds"},
    "Thresholds": {"priority"},
    "HealthCheck": {"reuse_connection", "tls_options"},
    "HttpHealthCheck": {"method"},
    "CommonTlsContext": {"tls_certificates", "tls_params"},
    "HttpProtocolOptions": {"common_http_protocol_options", "upstream_http_protocol_options"},
    "RouteConfiguration": {"max_direct_response_body_size_bytes"},
    "Listener": {"bind_to_port", "deprecated_v1", "use_original_dst"},
    "RouteMatch": {"case_sensitive"},
    "HeaderMatcher": {"present_match"},
    "VirtualHost": {"hedge_policy"},
    "HttpConnectionManager": {"common_http_protocol_options"},
    "AdaptiveConcurrency": {"enabled"},
    "AdmissionControl": {"aggression", "enabled", "rps_threshold"},
    "FaultDelay": {"percentage"},
    "FaultAbort": {"percentage"},
    "FaultRateLimit": {"percentage"},
    "LocalRateLimit": {"always_consume_default_token_bucket", "filter_enabled", "filter_enforced"},
    "ClusterLoadAssignment": {"named_endpoints", "policy"},
    "LocalityLbEndpoints": {"locality"},
}
# Harmless by nature; the tables of the decoders give the reason of each.
HARMLESS = {
    "GrpcService": {"timeout"},
    "EnvoyGrpc": {"max_receive_message_length", "skip_envoy_headers"},
    "GoogleGrpc": {"per_stream_buffer_limit_bytes", "stat_prefix"},
    "Cluster": {
        "alt_stat_name",
        "cleanup_interval",
        # of a cluster without names:
        "dns_failure_refresh_rate",
        "dns_jitter",
        "dns_lookup_family",
        "dns_refresh_rate",
        "dns_resolution_config",
        "dns_resolvers",
        "typed_dns_resolver_config",
        "use_tcp_for_dns_lookups",
        "protocol_selection",
        "respect_dns_ttl",
        "wait_for_warm_on_init",
    },
    "CertificateValidationContext": {"watched_directory"},
    "CommonLbConfig": {"update_merge_window"},
    "OutlierDetection": {"successful_active_health_check_uneject_host"},  # true, as it is by default
    "CommonTlsContext": {"alpn_protocols"},
    "HttpProtocolOptions": {"use_downstream_protocol_config"},
    "RouteConfiguration": {"metadata", "validate_clusters"},
    "Route": {"decorator", "stat_prefix"},
    "WeightedCluster": {"runtime_key_prefix"},
    "Listener": {
        "bypass_overload_manager",
        "connection_balance_config",
        "continue_on_listener_filters_timeout",
        "drain_type",
        "enable_mptcp",
        "enable_reuse_port",
        "freebind",
        "ignore_global_conn_limit",
        "listener_filters_timeout",
        "max_connections_to_accept_per_socket_event",
        "metadata",
        "reuse_port",
        "socket_options",
        "stat_prefix",
        "tcp_backlog_size",
        "tcp_fast_open_queue_length",
        "transparent",
    },
    "HttpConnectionManager": {
        "codec_type",
        "delayed_close_timeout",
        "drain_timeout",
        "forward_client_cert_details",
        "http2_protocol_options",
        "http3_protocol_options",
        "http_protocol_options",
        "max_request_headers_kb",
        "proxy_100_continue",
        "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        "request_headers_timeout",
        "server_header_transformation",
        "server_name",
        "set_current_client_cert_details",
        "stream_error_on_invalid_http_message",
        "use_remote_address",
        "xff_num_trusted_hops",
    },
    "LocalityLbEndpoints": {"metadata"},
    "SocketAddress": {"ipv4_compat"},  # about listening sockets
}


def _silent_fields(place: Place) -> Iterator[str]:
    type_url, visit = place
    descriptors: list[Any] = []
    base = _base(type_url)
    visit(base, lambda target: descriptors.extend(target.DESCRIPTOR.fields))
    plain = decode_message(base)
    for field in descriptors:
        changed = _base(type_url)
        visit(changed, lambda target, field=field: _set(target, field))
        if changed == base:
            continue
        try:
            found = decode_message(changed)
        except ResourceError:
            continue
        is_reported = any(field.name in issue.path for issue in found.issues)
        if found.resource == plain.resource and not is_reported:
            yield field.name


@pytest.mark.parametrize("name", PLACES)
def test_a_field_is_honoured_reported_refused_or_known_to_be_harmless(name: str) -> None:
    assert set(_silent_fields(PLACES[name])) == EMPTY.get(name, set()) | HARMLESS.get(name, set())


def _tables() -> Iterator[tuple[str, Any]]:
    from meshlib.sources.xds.decode.context import Fields

    for module in pkgutil.iter_modules(decode_package.__path__):
        loaded = importlib.import_module(f"{decode_package.__name__}.{module.name}")
        for name, value in vars(loaded).items():
            if isinstance(value, Fields):
                yield f"{module.name}.{name}", value


@pytest.mark.parametrize(("name", "table"), list(_tables()))
def test_the_tables_do_not_contradict_themselves_and_give_reasons(name: str, table: Any) -> None:
    assert not table.honoured & table.harmless.keys()
    assert not table.honoured & table.instead.keys()
    assert all(table.harmless.values())
    assert all(table.instead.values())


def test_an_unknown_any_is_named_in_its_report() -> None:
    message = _base(CLUSTER)
    message.typed_extension_protocol_options["x"].CopyFrom(AnyMessage(type_url="type.googleapis.com/test.Unknown"))
    assert "test.Unknown" in decode_message(message).issues[0].reason
