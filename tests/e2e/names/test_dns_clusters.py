"""DNS clusters against a DNS server of our own, whose answers change while calls are made."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from meshlib import Mesh
from meshlib.errors import NoHealthyUpstreamError
from meshlib.flags import ResponseFlag
from meshlib.model.cluster import Cluster
from meshlib.model.dns import Dns
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.sources.static import StaticSource, static_snapshot
from parts.dns_server import DnsServer
from parts.fast_backend import FastBackend, Reply

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
QUICK = Dns(refresh_rate=0.05, lookup_family="V4_ONLY")
NAME = "payments.test"


@pytest.fixture(scope="module")
def backends() -> Iterator[list[FastBackend]]:
    """One a host, all at the same port."""
    found = [FastBackend(HOSTS[0], Reply(body=HOSTS[0].encode()), host=HOSTS[0])]
    found += [FastBackend(host, Reply(body=host.encode()), host=host, port=found[0].port) for host in HOSTS[1:]]
    yield found
    for backend in found:
        backend.stop()


@pytest.fixture
def server() -> Iterator[DnsServer]:
    made = DnsServer({NAME: [HOSTS[0]]})
    yield made
    made.close()


@pytest.fixture
def mesh_of(server: DnsServer) -> Iterator[Callable[..., Mesh]]:
    with ExitStack() as stack:

        def make(port: int, kind: str = "STRICT_DNS", dns: Dns = QUICK, name: str = NAME, **options: Any) -> Mesh:
            group = LocalityLbEndpoints((LbEndpoint(Address(name, port)),))
            kinds: Any = kind
            cluster = Cluster("payments", kinds, load_assignment=ClusterLoadAssignment("payments", (group,)), dns=dns)
            options = {"name_servers": [server.address], "timeout": 5, **options}
            return stack.enter_context(Mesh.static({"payments": cluster}, **options))

        yield make


def until(wanted: Callable[[], Any], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.01)


def answers(client: httpx.Client, count: int = 8) -> set[str]:
    return {client.get("http://payments/").text for _ in range(count)}


def test_every_address_is_an_endpoint_and_answers_may_change(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port)
    with mesh.http.client() as client:
        assert answers(client) == {HOSTS[0]}  # the first call waited for the first answer
        kept = mesh.plan.clusters["payments"].balancer.hosts[0]
        server.records[NAME] = [HOSTS[1], HOSTS[0]]
        until(lambda: answers(client) == set(HOSTS[:2]))
        assert kept in mesh.plan.clusters["payments"].balancer.hosts  # its state is kept
        server.records[NAME] = [HOSTS[2]]
        until(lambda: answers(client) == {HOSTS[2]})
        response = client.get("http://payments/")
        assert response.extensions["meshlib"].endpoint == f"{HOSTS[2]}:{backends[0].port}"


async def test_the_event_loop_waits_for_a_first_answer_and_never_resolves(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", lambda *_, **__: pytest.fail("the application's loop resolves names"))
    mesh = mesh_of(backends[0].port)
    async with mesh.http.async_client() as client:
        assert (await client.get("http://payments/")).text == HOSTS[0]
        server.records[NAME] = [HOSTS[1]]
        end = time.monotonic() + 5
        while (await client.get("http://payments/")).text != HOSTS[1]:
            assert time.monotonic() < end


def test_failures_keep_the_addresses_and_an_empty_answer_takes_them(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port)
    with mesh.http.client() as client:
        assert answers(client) == {HOSTS[0]}
        server.broken.add(NAME)
        before = server.asked[NAME]
        until(lambda: server.asked[NAME] > before + 4)
        assert answers(client) == {HOSTS[0]}
        server.broken.clear()
        server.records[NAME] = []  # the name is there, without addresses
        until(lambda: not mesh.plan.clusters["payments"].balancer.hosts)
        with pytest.raises(NoHealthyUpstreamError) as gone:
            client.get("http://payments/")
        assert gone.value.flag is ResponseFlag.UH
        server.records[NAME] = [HOSTS[1]]
        until(lambda: mesh.plan.clusters["payments"].balancer.hosts)
        assert answers(client) == {HOSTS[1]}
        del server.records[NAME]  # NXDOMAIN
        until(lambda: not mesh.plan.clusters["payments"].balancer.hosts)


def test_a_server_that_dies_changes_nothing_and_is_asked_again(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    other = DnsServer({NAME: [HOSTS[0]]})
    mesh = mesh_of(backends[0].port, name_servers=[other.address])
    with mesh.http.client() as client:
        assert answers(client) == {HOSTS[0]}
        other.close()
        assert answers(client) == {HOSTS[0]}
        again = DnsServer({NAME: [HOSTS[1]]}, port=other.port)
        try:
            until(lambda: answers(client) == {HOSTS[1]}, 15)
        finally:
            again.close()


def test_a_name_that_nobody_answers_for_is_waited_for_no_longer_than_a_call_may(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    silent = DnsServer({NAME: [HOSTS[0]]})
    silent.close()
    mesh = mesh_of(backends[0].port, name_servers=[silent.address], fetch_timeout=0.2)
    with mesh.http.client() as client:
        began = time.monotonic()
        with pytest.raises(NoHealthyUpstreamError) as failed:
            client.get("http://payments/")
        assert failed.value.flag is ResponseFlag.UH
        assert time.monotonic() - began < 4


def test_readiness_waits_for_the_first_answer_and_a_failure_is_one(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port).wait_ready(10)
    assert [host.address for host in mesh.plan.clusters["payments"].balancer.hosts] == [
        f"{HOSTS[0]}:{backends[0].port}"
    ]
    server.broken.add("nowhere.test")
    assert not mesh_of(1, name="nowhere.test").wait_ready(10).plan.clusters["payments"].awaited


def test_a_logical_dns_cluster_has_one_endpoint_and_keeps_its_connections(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port, kind="LOGICAL_DNS")
    with mesh.http.client() as client:
        assert answers(client) == {HOSTS[0]}
        made = backends[0].connections_made
        server.records[NAME] = [HOSTS[1], HOSTS[2]]
        plan = mesh.plan
        until(lambda: mesh.plan is not plan)
        assert answers(client) == {HOSTS[0]}  # by the connection that is open
        assert backends[0].connections_made == made
        (host,) = mesh.plan.clusters["payments"].balancer.hosts
        assert host.address == f"{NAME}:{backends[0].port}"
        with ThreadPoolExecutor(2) as pool:  # two at once need a second connection, which goes to the new address
            backends[0].reply = replace(Reply(body=HOSTS[0].encode()), delay=0.3)
            first = pool.submit(answers, client, 1)
            time.sleep(0.1)
            assert answers(client, 1) <= set(HOSTS[1:])  # whichever the server named first
            assert first.result() == {HOSTS[0]}
        backends[0].reply = Reply(body=HOSTS[0].encode())
        server.broken.add(NAME)
        del server.records[NAME]
        assert answers(client) <= set(HOSTS)


def test_all_addresses_of_a_logical_name_are_tried(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    server.records[NAME] = ["127.0.0.9", HOSTS[1]]  # at the first nobody listens
    mesh = mesh_of(backends[0].port, kind="LOGICAL_DNS", dns=replace(QUICK, lookup_family="ALL"))
    with mesh.http.client() as client:
        assert answers(client) == {HOSTS[1]}


def test_times_to_live_are_kept_to_where_they_are_asked_for(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port, dns=replace(QUICK, respect_ttl=True)).wait_ready()
    time.sleep(0.5)  # ten times the refresh rate; the answer is good for a minute
    assert server.asked[NAME] == 1
    assert mesh.plan.clusters["payments"].balancer.hosts


class Echo(grpc.GenericRpcHandler):
    def __init__(self, text: bytes) -> None:
        self.text = text

    def service(self, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.text)


def test_grpc_calls_follow_the_names(mesh_of: Callable[..., Mesh], server: DnsServer) -> None:
    servers, port = [], 0
    for host in HOSTS[:2]:
        made = grpc.server(ThreadPoolExecutor(4), handlers=(Echo(host.encode()),))
        port = made.add_insecure_port(f"{host}:{port}")
        made.start()
        servers.append(made)
    try:
        for kind in ("STRICT_DNS", "LOGICAL_DNS"):
            server.records[NAME] = [HOSTS[0]]
            mesh = mesh_of(port, kind=kind)
            with mesh.grpc.channel("payments") as channel:
                call = channel.unary_unary("/a.B/C")
                assert call(b"") == HOSTS[0].encode()
                server.records[NAME] = [HOSTS[1]]
                until(lambda call=call: call(b"") == HOSTS[1].encode())  # type: ignore[misc]
    finally:
        for made in servers:
            made.stop(0)


def test_files_say_which_servers_to_ask(server: DnsServer, backends: list[FastBackend], tmp_path: Path) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text(f"""
static_resources:
  clusters:
  - name: payments
    type: STRICT_DNS
    dns_lookup_family: V4_ONLY
    dns_refresh_rate: 0.05s
    typed_dns_resolver_config:
      name: envoy.network.dns_resolver.cares
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
        resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {server.port}}}}}]
    load_assignment:
      cluster_name: payments
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {NAME}, port_value: {backends[0].port}}}}}}}
  listeners:
  - name: payments
    api_listener:
      api_listener:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: x
        route_config:
          virtual_hosts:
          - {{name: all, domains: [payments], routes: [{{match: {{prefix: /}}, route: {{cluster: payments}}}}]}}
        http_filters:
        - name: envoy.filters.http.router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
""")
    with Mesh.from_file(config) as mesh, mesh.wait_ready().http.client() as client:
        assert answers(client) == {HOSTS[0]}
        assert mesh.issues == ()
        server.records[NAME] = [HOSTS[2]]
        until(lambda: answers(client) == {HOSTS[2]})


def test_a_forked_child_looks_up_anew(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port)
    with mesh.http.client() as client:
        assert answers(client) == {HOSTS[0]}
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"the child failed"
        try:
            with mesh.http.client() as client:
                first = answers(client)
                until(lambda: answers(client) == {HOSTS[1]}, 10)
            said = f"{first <= set(HOSTS[:2])} {mesh.generation}".encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    server.records[NAME] = [HOSTS[1]]
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "True 1"
    os.waitpid(child, 0)
    with mesh.http.client() as client:
        until(lambda: answers(client) == {HOSTS[1]})


def test_names_are_asked_for_no_more_when_nothing_leads_to_them_and_when_the_mesh_is_closed(
    mesh_of: Callable[..., Mesh], server: DnsServer, backends: list[FastBackend]
) -> None:
    mesh = mesh_of(backends[0].port).wait_ready()
    until(lambda: server.asked[NAME] > 2)
    source = mesh.source
    assert isinstance(source, StaticSource)
    source.replace(static_snapshot({"payments": [f"{HOSTS[0]}:{backends[0].port}"]}))
    _is_quiet(server)
    mesh = mesh_of(backends[0].port).wait_ready()
    mesh.close()
    _is_quiet(server)
    mesh.start().wait_ready()
    before = server.asked[NAME]
    until(lambda: server.asked[NAME] > before)


def _is_quiet(server: DnsServer) -> None:
    time.sleep(0.1)  # for questions under way
    before = server.asked[NAME]
    time.sleep(0.3)
    assert server.asked[NAME] == before


def test_without_dnspython_the_systems_resolver_is_asked_and_that_is_told(
    mesh_of: Callable[..., Mesh], backends: list[FastBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("meshlib.resolve.lookup", "meshlib.resolve.resolver"):
        monkeypatch.setattr(f"{module}.has_dnspython", lambda: False)
    mesh = mesh_of(backends[0].port, name="localhost", dns=replace(QUICK, respect_ttl=True), name_servers=[])
    assert mesh.wait_ready().plan.clusters["payments"].balancer.hosts[0].address == f"127.0.0.1:{backends[0].port}"
    assert [(issue.path, issue.fix) for issue in mesh.issues] == [("respect_dns_ttl", "pip install 'meshlib[dns]'")]


ZONES = """
node: {{id: me, cluster: shop, locality: {{zone: here}}}}
cluster_manager: {{local_cluster_name: shop}}
static_resources:
  clusters:
  - name: shop
    type: STATIC
    load_assignment: &spread
      cluster_name: shop
      endpoints:
      - locality: {{zone: here}}
        lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.2, port_value: {port}}}}}}}}}]
      - locality: {{zone: there}}
        lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.3, port_value: {port}}}}}}}}}]
  - name: payments
    type: STATIC
    common_lb_config: {{zone_aware_lb_config: {{min_cluster_size: 2}}}}
    load_assignment: *spread
  - name: gone
    type: STATIC
    common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}
    load_assignment:
      cluster_name: gone
      endpoints:
      - lb_endpoints:
        - health_status: UNHEALTHY
          endpoint: {{address: {{socket_address: {{address: 127.0.0.4, port_value: {port}}}}}}}
  - name: row
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.aggregate
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig
        clusters: [gone, payments]
---
"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: all
virtual_hosts:
- {{name: payments, domains: [payments], routes: [{{match: {{prefix: /}}, route: {{cluster: payments}}}}]}}
- {{name: row, domains: [row], routes: [{{match: {{prefix: /}}, route: {{cluster: row}}}}]}}
"""


async def test_zones_and_aggregates_of_a_bootstrap_file(backends: list[FastBackend], tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(ZONES.format(port=backends[0].port))
    async with Mesh.from_file(tmp_path / "mesh.yaml") as mesh, mesh.wait_ready().http.async_client() as client:
        assert mesh.issues == ()
        for host in ("payments", "row"):
            responses = [await client.get(f"http://{host}/") for _ in range(10)]
            assert {response.text for response in responses} == {HOSTS[0]}  # this zone can carry its own requests
            assert {response.extensions["meshlib"].cluster for response in responses} == {"payments"}
        assert mesh.stats()["cluster.payments.lb_zone_routing_all_directly"] == 20
    with Mesh.from_file(tmp_path / "mesh.yaml", locality="//", local_cluster="shop") as mesh:
        assert mesh.wait_ready().plan.clusters["payments"].callers is not None
