"""Endpoints that their name resolves to no longer, but whose checks pass: a real Envoy, a mesh and a DNS server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from differential.calls_twin import Call, Twin, virtual_host
from parts.dns_server import DnsServer
from parts.fast_backend import FastBackend, Reply
from parts.xds import eventually

NAME = "payments.test"
RESOLVER = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
BOTH = {"127.0.0.1", "127.0.0.2"}


def cluster(server: DnsServer, port: int, **more: Any) -> dict[str, Any]:
    where = {"socket_address": {"address": "127.0.0.1", "port_value": server.port}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": NAME, "port_value": port}}}}
    check = {
        "timeout": "2s",
        "interval": "0.05s",
        "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/healthz"},
    }
    return {
        "name": "up",
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "dns_refresh_rate": "0.1s",
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {"@type": RESOLVER, "resolvers": [where]},
        },
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "health_checks": [check],
        "common_lb_config": {"update_merge_window": "0s"},
        **more,
    }


def theirs(twin: Twin) -> set[str]:
    (status,) = [each for each in twin.envoy.clusters()["cluster_statuses"] if each["name"] == "up"]
    return {host["address"]["socket_address"]["address"] for host in status.get("host_statuses", ())}


def ours(twin: Twin) -> set[str]:
    return {host.endpoint.address.host for host in twin.mesh.plan.clusters["up"].balancer.hosts}


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    server = DnsServer({NAME: sorted(BOTH)})
    yield server
    server.close()


@pytest.mark.parametrize("ignored", [False, True])
def test_who_is_well_stays_until_it_is_not(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend], dns: DnsServer, ignored: bool
) -> None:
    first = fast_backend("first")
    second = fast_backend("second", host="127.0.0.2", port=first.port)
    twin = make_twin([virtual_host([ALL])], [cluster(dns, first.port, ignore_health_on_host_removal=ignored)])
    eventually(lambda: theirs(twin) == ours(twin) == BOTH, "both are found")
    eventually(lambda: second.count > 4, "and checked")
    dns.records = {NAME: ["127.0.0.1"]}
    if not ignored:
        time.sleep(1.0)  # ten times the refresh rate
        assert theirs(twin) == ours(twin) == BOTH
        for send in (twin.theirs, twin.ours):
            assert {send(Call(str(number))).backend for number in range(30)} == {"first", "second"}
        second.behave(Reply(503))
    eventually(lambda: theirs(twin) == {"127.0.0.1"}, f"Envoy lets it go: {theirs(twin)}")
    eventually(lambda: ours(twin) == {"127.0.0.1"}, f"the mesh lets it go: {ours(twin)}")
    assert {host.address for host in twin.mesh.plan.clusters["up"].balancer.hosts} == {first.address}
    assert second.address not in twin.mesh.runtime.state.clusters["up"].endpoints
