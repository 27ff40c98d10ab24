"""grpcio's own xds:/// client configured by our ADS server, in a process of its own."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from meshlib.control.control_plane import ControlPlane
from parts.xds import LISTENER, api_listener, cluster, endpoints, eventually, resources, routes

CLIENT = textwrap.dedent(
    """
    import sys
    import grpc

    with grpc.insecure_channel("xds:///" + sys.argv[1]) as channel:
        call = channel.unary_unary("/test.Greeter/Hello")
        for line in sys.stdin:
            print(call(b"hello", timeout=10, wait_for_ready=True).decode(), flush=True)
    """
)


def greeter(name: str) -> tuple[grpc.Server, int]:
    def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
        return f"{name} heard {request.decode()}".encode()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {"Hello": grpc.unary_unary_rpc_method_handler(hello)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def world(name: str, port: int) -> list[Any]:
    return resources(
        api_listener("greeter", "routes"),
        routes("routes", name),
        cluster(name),
        endpoints(name, ("127.0.0.1", port)),
    )


@pytest.fixture
def greeters() -> Iterator[dict[str, int]]:
    running = {name: greeter(name) for name in ("first", "second")}
    yield {name: port for name, (_, port) in running.items()}
    for server, _ in running.values():
        server.stop(None)


class Client:
    """grpcio with ``xds:///`` in a process: one call for each ``say``."""

    def __init__(self, server: str, target: str) -> None:
        creds = [{"type": "insecure"}]
        servers = [{"server_uri": server, "channel_creds": creds, "server_features": ["xds_v3"]}]
        config = json.dumps({"xds_servers": servers, "node": {"id": "grpc-1"}})
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, target],
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": config},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_calls_follow_the_store(greeters: dict[str, int], servers: Any) -> None:
    store = ResourceStore(world("first", greeters["first"]))
    with AdsServer(store) as server:
        client = servers.keep(Client(f"127.0.0.1:{server.port}", "greeter"))
        assert client.call() == "first heard hello"
        store.replace(world("second", greeters["second"]))
        eventually(lambda: client.call() == "second heard hello", "the calls to move")
        (subscriber,) = server.subscribers()
        assert subscriber.node_id == "grpc-1"
        assert subscriber.user_agent.startswith("gRPC")
        assert {t.type_url: t.names for t in subscriber.types}[LISTENER] == ("greeter",)
        assert not any(t.nacks for t in subscriber.types)


ISTIO = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: greeter, namespace: default}
spec:
  hosts: [greeter.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: grpc, protocol: GRPC}]
  endpoints:
  - {address: 127.0.0.1, ports: {grpc: FIRST}, labels: {version: first}}
  - {address: 127.0.0.1, ports: {grpc: SECOND}, labels: {version: second}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: greeter, namespace: default}
spec:
  host: greeter.test
  # grpcio has no least request, which is Istio's default, and refuses a cluster that asks for it.
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
  - {name: first, labels: {version: first}}
  - {name: second, labels: {version: second}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter, namespace: default}
spec:
  hosts: [greeter.test]
  http: [{route: [{destination: {host: greeter.test, subset: CHOSEN}}]}]
"""


def test_calls_follow_a_directory_of_istio_objects(greeters: dict[str, int], servers: Any, tmp_path: Path) -> None:
    def write(chosen: str) -> None:
        ports = ISTIO.replace("FIRST", str(greeters["first"])).replace("SECOND", str(greeters["second"]))
        (tmp_path / "new").write_text(ports.replace("CHOSEN", chosen))
        (tmp_path / "new").rename(tmp_path / "greeter.yaml")

    write("first")
    with ControlPlane(tmp_path) as plane:
        client = servers.keep(Client(plane.address, "greeter.test:8080"))
        assert client.call() == "first heard hello"
        write("second")
        eventually(lambda: client.call() == "second heard hello", "the calls to move")
        (subscriber,) = plane.subscribers()
        assert not any(t.nacks for t in subscriber.types)
