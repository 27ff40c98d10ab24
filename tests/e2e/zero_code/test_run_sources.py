"""`meshlib run` finds its control plane in the environment: gRPC's bootstrap, as a file and as text, and Consul's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.zero_code.conftest import said
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from parts import xds_resources as xds
from parts.consul_server import ConsulServer
from parts.fast_backend import FastBackend

PROGRAM = "import httpx, json; print(json.dumps(httpx.get('http://payments/').headers['x-backend']))"


@pytest.fixture
def bootstrap(payments: FastBackend) -> Iterator[str]:
    """The text of a bootstrap whose server knows `payments`."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "payments"}}
    served = [
        (xds.LISTENER, xds.api_listener("payments", "payments")),
        (xds.ROUTE_CONFIGURATION, xds.route_configuration("payments", route)),
        (xds.CLUSTER, xds.eds_cluster("payments")),
        (xds.CLUSTER_LOAD_ASSIGNMENT, xds.assignment("payments", xds.endpoint("127.0.0.1", payments.port))),
    ]
    store = ResourceStore(Resource.of_message(xds.message(*item)) for item in served)
    with AdsServer(store) as server:
        address = f"127.0.0.1:{server.port}"
        control_plane = {"server_uri": address, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
        yield json.dumps({"xds_servers": [control_plane], "node": {"id": "shop"}})


@pytest.mark.parametrize("variable", ["GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG"])
@pytest.mark.parametrize("more", [{}, {"MESHLIB_XDS": "1"}], ids=["alone", "MESHLIB_XDS=1"])
def test_a_bootstrap_of_the_environment(
    meshlib_run: Any, bootstrap: str, tmp_path: Path, variable: str, more: dict[str, str]
) -> None:
    value = bootstrap
    if variable == "GRPC_XDS_BOOTSTRAP":
        (tmp_path / "bootstrap.json").write_text(bootstrap)
        value = str(tmp_path / "bootstrap.json")
    assert said(meshlib_run("--", "python", "-c", PROGRAM, **{variable: value}, **more)) == "payments"


@pytest.mark.needs("consul")
@pytest.mark.parametrize("how", ["MESHLIB_CONSUL", "CONSUL_HTTP_ADDR", "--consul"])
def test_consul(meshlib_run: Any, servers: Any, payments: FastBackend, how: str) -> None:
    consul = servers.keep(ConsulServer(servers.folder("consul")))
    consul.register("payments", "payments-1", payments.port)
    command = ("--", "python", "-c", PROGRAM)
    match how:
        case "MESHLIB_CONSUL":
            done = meshlib_run(*command, MESHLIB_CONSUL=consul.address)
        case "CONSUL_HTTP_ADDR":
            done = meshlib_run(*command, MESHLIB_CONSUL="1", CONSUL_HTTP_ADDR=consul.address)
        case _:
            done = meshlib_run("--consul", consul.address, *command)
    assert said(done) == "payments"
