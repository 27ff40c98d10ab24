"""How a DNS cluster's names are resolved: the fields of Cluster, and those of the extension `envoy.clusters.dns`."""

from __future__ import annotations

from typing import Any

from meshlib.model.dns import DEFAULT_DNS, Dns, RefreshRate
from meshlib.model.endpoint import Address
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import duration, enum_name, unpack
from meshlib.sources.xds.decode.context import Context, fields, join

_RESOLVERS = "envoy.extensions.network.dns_resolver."
_CARES = f"{_RESOLVERS}cares.v3.CaresDnsResolverConfig"
_TYPES = {
    _CARES: f"{_RESOLVERS}cares.v3.cares_dns_resolver_pb2",
    f"{_RESOLVERS}getaddrinfo.v3.GetAddrInfoDnsResolverConfig": (
        f"{_RESOLVERS}getaddrinfo.v3.getaddrinfo_dns_resolver_pb2"
    ),
    f"{_RESOLVERS}apple.v3.AppleDnsResolverConfig": f"{_RESOLVERS}apple.v3.apple_dns_resolver_pb2",
}
CLUSTER_FIELDS = (
    "dns_refresh_rate",
    "dns_failure_refresh_rate",
    "dns_jitter",
    "dns_lookup_family",
    "respect_dns_ttl",
    "dns_resolution_config",
    "typed_dns_resolver_config",
    "dns_resolvers",
    "use_tcp_for_dns_lookups",
)
"""The fields of Cluster that are read here."""
_EXTENSION = fields(
    "dns_refresh_rate",
    "dns_failure_refresh_rate",
    "dns_jitter",
    "dns_lookup_family",
    "respect_dns_ttl",
    "typed_dns_resolver_config",
    "all_addresses_in_single_endpoint",
)
_HARMLESS = {
    "use_resolvers_as_fallback": "the system has resolvers of its own, so that those named are not asked",
    "filter_unroutable_families": "IPv6 is not asked for where the machine has none",
    "udp_max_queries": "every look-up has a socket of its own",
    "query_timeout_seconds": "a look-up is given 5 seconds",
    "query_tries": "a look-up is given 5 seconds",
    "num_retries": "the next refresh is the retry",
    "rotate_nameservers": "the first that answers counts",
}
_RESOLVER = fields("resolvers", "dns_resolver_options", harmless=_HARMLESS)
_OPTIONS = fields("use_tcp_for_dns_lookups", "no_default_search_domain")


def dns_of_cluster(ctx: Context, message: Any) -> Dns:
    """By the fields of a Cluster of type STRICT_DNS or LOGICAL_DNS."""
    family = enum_name(message, "dns_lookup_family", "")
    if message.HasField("typed_dns_resolver_config"):
        resolvers, tcp = _typed(ctx, message.typed_dns_resolver_config, "typed_dns_resolver_config")
    elif message.HasField("dns_resolution_config"):
        resolvers, tcp = _resolution(ctx, message.dns_resolution_config, "dns_resolution_config")
    else:
        resolvers, tcp = _addresses(message.dns_resolvers, "dns_resolvers"), message.use_tcp_for_dns_lookups
    return _dns(message, family, "", resolvers, tcp)


def dns_of_extension(ctx: Context, message: Any, path: str) -> Dns:
    """By a DnsCluster."""
    ctx.check_fields(message, path, _EXTENSION)
    family = enum_name(message, "dns_lookup_family", path)
    resolvers, tcp = _typed(ctx, message.typed_dns_resolver_config, join(path, "typed_dns_resolver_config"))
    return _dns(message, "AUTO" if family == "UNSPECIFIED" else family, path, resolvers, tcp)


def _dns(message: Any, family: Any, path: str, resolvers: tuple[Address, ...], tcp: bool) -> Dns:
    refresh = duration(message, "dns_refresh_rate")
    if refresh is not None and refresh <= 0:
        raise ResourceError(join(path, "dns_refresh_rate"), "must be greater than 0")
    found = Dns(
        DEFAULT_DNS.refresh_rate if refresh is None else refresh,
        _failure(message, path),
        duration(message, "dns_jitter") or 0.0,
        bool(message.respect_dns_ttl),
        family,
        resolvers,
        tcp,
    )
    return DEFAULT_DNS if found == DEFAULT_DNS else found


def _failure(message: Any, path: str) -> RefreshRate | None:
    if not message.HasField("dns_failure_refresh_rate"):
        return None
    rate = message.dns_failure_refresh_rate
    base = duration(rate, "base_interval")
    if base is None:
        raise ResourceError(join(path, "dns_failure_refresh_rate.base_interval"), "is required")
    most = duration(rate, "max_interval")
    most = base * 10 if most is None else most
    if most < base:
        raise ResourceError(join(path, "dns_failure_refresh_rate.max_interval"), "must not be below base_interval")
    return RefreshRate(base, most)


def _typed(ctx: Context, extension: Any, path: str) -> tuple[tuple[Address, ...], bool]:
    if not extension.typed_config.type_url:
        return (), False
    where = join(path, "typed_config")
    name, found = unpack(extension.typed_config, _TYPES, where)
    if found is None:
        ctx.degraded(path, f"{name or extension.name} is not supported; names are resolved by the system's resolver")
        return (), False
    return _resolution(ctx, found, where) if name == _CARES else ((), False)


def _resolution(ctx: Context, message: Any, path: str) -> tuple[tuple[Address, ...], bool]:
    """Of `CaresDnsResolverConfig` or the older `DnsResolutionConfig`, which have the same fields."""
    ctx.check_fields(message, path, _RESOLVER)
    options = message.dns_resolver_options
    ctx.check_fields(options, join(path, "dns_resolver_options"), _OPTIONS)
    fallback = "use_resolvers_as_fallback" in message.DESCRIPTOR.fields_by_name and message.use_resolvers_as_fallback
    if fallback:
        return (), bool(options.use_tcp_for_dns_lookups)
    return _addresses(message.resolvers, join(path, "resolvers")), bool(options.use_tcp_for_dns_lookups)


def _addresses(messages: Any, path: str) -> tuple[Address, ...]:
    found = []
    for index, message in enumerate(messages):
        socket = message.socket_address
        if message.WhichOneof("address") != "socket_address" or not socket.address:
            raise ResourceError(f"{path}[{index}]", "must be a socket_address")
        found.append(Address(socket.address, socket.port_value or 53))
    return tuple(found)
