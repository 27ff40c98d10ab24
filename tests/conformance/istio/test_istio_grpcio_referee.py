"""grpcio's own `xds:///` at the same generator: both clients are sent to the same workloads by host, port, subset and
header.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from parts.istio_bookinfo import documents, routes, subsets
from parts.istio_nodes import istio_mesh, node
from parts.istio_server import IstioServer
from parts.istio_workloads import Shop, who

pytestmark = pytest.mark.needs("istio_generator")

# One call for each line, which is a target and metadata as JSON. In a process of its own: the bootstrap is read once.
REFEREE = textwrap.dedent(
    """
    import json, sys
    import grpc
    for line in sys.stdin:
        target, metadata = json.loads(line)
        with grpc.insecure_channel("xds:///" + target) as channel:
            call = channel.unary_unary("/shop.Workload/Who")
            print(call(b"", timeout=10, wait_for_ready=True, metadata=[tuple(pair) for pair in metadata]).decode())
        sys.stdout.flush()
    """
)
RULES = [
    subsets("reviews"),
    routes("reviews", """[
      {match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]},
      {match: [{headers: {end-user: {prefix: j}}}], route: [{destination: {host: reviews, subset: v3}}]},
      {match: [{headers: {tier: {regex: "gold|silver"}}}], route: [{destination: {host: details}}]},
      {match: [{uri: {prefix: /shop.Other/}}], route: [{destination: {host: ratings}}]},
      {route: [{destination: {host: reviews, subset: v1}}]}]"""),
    routes("ratings", "[{route: [{destination: {host: productpage, port: {number: 9090}}}]}]"),
]  # fmt: skip
METADATA = ([], [("end-user", "jason")], [("end-user", "jane")], [("end-user", "bob")], [("tier", "gold")])
TARGETS = ("reviews.default.svc.cluster.local:9090", "details.default.svc.cluster.local:9090",
           "ratings.default.svc.cluster.local:9090", "productpage.default.svc.cluster.local:9090")  # fmt: skip


@contextmanager
def referee(istio: IstioServer) -> Iterator[Callable[[str, list[tuple[str, str]]], str]]:
    """Who answers grpcio, as the same proxyless node."""
    me = node("grpc")
    server = {"server_uri": istio.target, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
    config = json.dumps({"xds_servers": [server], "node": {"id": me.id, "metadata": dict(me.metadata)}})
    env = {**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": config}
    argv = [sys.executable, "-c", REFEREE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        talk = process.stdin, process.stdout

        def ask(target: str, metadata: list[tuple[str, str]]) -> str:
            talk[0].write(json.dumps([target, metadata]) + "\n")
            talk[0].flush()
            return talk[1].readline().strip()

        yield ask
        process.stdin.close()
        process.wait(10)


def test_both_clients_are_sent_to_the_same_workloads(istio_generator: Callable[..., IstioServer]) -> None:
    shop = Shop()
    try:
        istio = istio_generator(documents([shop.entries, *RULES]))
        with referee(istio) as ask, istio_mesh(istio, "grpc").wait_ready() as mesh:
            for target in TARGETS:
                with mesh.grpc.channel(target) as channel:
                    for metadata in METADATA:
                        theirs = ask(target, metadata)
                        assert theirs in shop.workloads
                        assert who(channel, metadata) == theirs, (target, metadata)
        assert istio.nacks() == []
    finally:
        shop.stop()
