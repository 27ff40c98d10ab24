"""The helpers the other tests stand on: each server starts, answers, misbehaves as told and stops."""

import json
import socket
import struct
import urllib.error

import grpc
import pytest
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

from parts.fast_backend import Reply, Request
from parts.process import Process, ServerError
from parts.web import fetch

ENVOY_DIRECT_RESPONSE = """
static_resources:
  listeners:
  - name: front
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hello}}}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"""


ENVOY_ON_ADS = """
node: {id: envoy, cluster: tests}
dynamic_resources:
  ads_config: {api_type: %(variant)s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: ads}}]}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: ads
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: ads
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %(port)d}}}
"""


def test_backend_echoes_what_it_was_asked(backend):
    stable = backend("stable")
    echo = json.loads(fetch(f"{stable.url}/a%2Fb?x=1", data=b"hello"))
    assert (echo["name"], echo["method"], echo["path"], echo["query"]) == ("stable", "POST", "/a%2Fb", "x=1")
    assert (echo["body"], echo["body_length"]) == ("hello", 5)
    assert stable.count == 1


def test_backend_misbehaves_by_query_and_by_standing_order(backend):
    flaky = backend("flaky")
    assert len(fetch(f"{flaky.url}/?size=1000&chunks=3")) == 1000
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(f"{flaky.url}/?status=503")
    caught.value.close()
    flaky.behave(status=429)
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(flaky.url)
    assert caught.value.code == 429
    caught.value.close()
    flaky.behave()
    assert fetch(flaky.url)


def test_backend_dies_and_comes_back_on_its_port(backend):
    mortal = backend("mortal")
    port = mortal.port
    mortal.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    mortal.restart()
    assert mortal.port == port
    assert fetch(mortal.url)


def test_fast_backend_answers_values(fast_backend):
    def reply(request: Request) -> Reply:
        return Reply(201 if request.header("x-a") is None else 202, request.target.encode())

    service = fast_backend("fast", reply)
    assert fetch(f"{service.url}/path") == b"/path"
    assert service.requests[0].method == "GET"
    service.behave(Reply(503))
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(service.url)
    caught.value.close()
    service.behave()
    assert json.loads(fetch(service.url))["name"] == "fast"
    assert service.count == 3


@pytest.mark.parametrize(
    ("fault", "received"),
    [("reset", ConnectionResetError), ("close", b""), ("hang", TimeoutError), ("truncate", b"half")],
)
def test_fast_backend_faults_at_the_socket(fast_backend, fault, received):
    service = fast_backend("faulty", Reply(body=b"halfgone", fault=fault))
    with socket.create_connection((service.host, service.port), timeout=0.3) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        if isinstance(received, bytes):
            with connection.makefile("rb") as answer:
                assert answer.read().partition(b"\r\n\r\n")[2] == received
        else:
            with pytest.raises(received):
                connection.recv(1)


def test_fast_backend_survives_a_client_that_resets(fast_backend):
    service = fast_backend("fast")
    with socket.create_connection((service.host, service.port), timeout=5) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"GET / HTTP/1.1\r\n")
    assert fetch(service.url)


def test_a_server_that_ends_early_tells_what_it_said(tmp_path):
    process = Process(["/bin/sh", "-c", "echo no such option; exit 3"], tmp_path / "log")
    with pytest.raises(ServerError, match=r"ended with 3 before [\s\S]*no such option"):
        process.wait_line("^ready")
    assert process.stop() == 3


def test_envoy_serves_the_bootstrap(envoy):
    proxy = envoy(ENVOY_DIRECT_RESPONSE)
    assert fetch(f"http://127.0.0.1:{proxy.port}/") == b"hello"
    assert proxy.listener_port("front") == proxy.port
    assert proxy.stats("^http.front.downstream_rq_2xx$") == {"http.front.downstream_rq_2xx": 1}


def test_redis_is_empty_for_each_test_and_comes_back_on_its_port(redis_server, redis_factory):
    assert redis_server.command("DBSIZE") == ":0"
    assert redis_server.command("SET a 1") == "+OK"
    own = redis_factory()
    own.kill()
    with pytest.raises(OSError, match="refused"):
        own.command("PING")
    own.restart()
    assert own.command("PING") == "+PONG"


def test_redis_forgets_what_the_test_before_wrote(redis_server):
    assert redis_server.command("DBSIZE") == ":0"


def test_go_control_plane_serves_each_change_of_its_folder(go_control_plane):
    cluster = {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a", "type": "EDS"}
    server = go_control_plane()
    first = server.write([cluster])
    second = server.write([cluster, {**cluster, "name": "b"}])
    assert second > first


@pytest.mark.parametrize("variant", ["GRPC", "DELTA_GRPC"])
def test_envoy_takes_go_control_planes_clusters(envoy, go_control_plane, variant):
    def cluster(name: str) -> dict[str, str]:
        return {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": name, "type": "STATIC"}

    server = go_control_plane()
    server.write([cluster("a")])
    proxy = envoy(ENVOY_ON_ADS % {"variant": variant, "port": server.port})
    assert "a::" in proxy.admin("/clusters")
    server.write([cluster("b")])
    proxy.wait_for(lambda: "b::" in (seen := proxy.admin("/clusters")) and "a::" not in seen, "cluster b alone")
    assert f"opened {'delta' if variant == 'DELTA_GRPC' else 'sotw'}" in server.log()


def test_go_control_plane_refuses_a_bad_folder_with_the_reason(go_control_plane):
    server = go_control_plane()
    bad = {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "nam": 1}
    with pytest.raises(ServerError, match='unknown field "nam"'):
        server.write([bad])
    good = server.write([{"@type": bad["@type"], "name": "a"}])
    assert good == 2


def test_ratelimit_counts_on_redis_and_comes_back_on_its_port(ratelimit_server, redis_server):
    limit = {"key": "user", "rate_limit": {"unit": "day", "requests_per_unit": 2}}
    server = ratelimit_server({"shop": [limit]})

    def codes(count: int) -> list[int]:
        request = rls_pb2.RateLimitRequest(domain="shop")
        request.descriptors.add().entries.add(key="user", value="ada")
        with grpc.insecure_channel(server.address) as channel:
            ask = rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit
            return [ask(request, timeout=10, wait_for_ready=True).overall_code for _ in range(count)]

    assert codes(3) == [1, 1, 2]
    server.kill()
    server.restart()
    assert codes(1) == [2]
    redis_server.flush()
    assert codes(1) == [1]
