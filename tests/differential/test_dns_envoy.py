"""The same DNS clusters in a real Envoy and in ours, asking the same server, through every kind of answer."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib import Mesh
from parts.dns_server import DnsServer
from parts.envoy_server import EnvoyServer

pytestmark = pytest.mark.needs("envoy")

FAMILIES = ("AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL")
NAME = "payments.test"
BOTH = "LOGICAL_DNS-ALL"
"""Both try all addresses there; which first, Envoy's c-ares decides by the routes of the machine."""
RESOLVER = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


def _cluster(kind: str, family: str, server: DnsServer, name: str = NAME) -> dict[str, Any]:
    where = {"socket_address": {"address": "127.0.0.1", "port_value": server.port}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": name, "port_value": 80}}}}
    label = f"{kind}-{family}"
    return {
        "name": label,
        "type": kind,
        "connect_timeout": "1s",
        "dns_lookup_family": family,
        "dns_refresh_rate": "0.1s",
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {"@type": RESOLVER, "resolvers": [where]},
        },
        "load_assignment": {"cluster_name": label, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _theirs(server: EnvoyServer) -> dict[str, set[str]]:
    return {
        status["name"]: {host["address"]["socket_address"]["address"] for host in status.get("host_statuses", ())}
        for status in server.clusters()["cluster_statuses"]
        if status["name"] != BOTH
    }


def _ours(mesh: Mesh) -> dict[str, set[str]]:
    return {
        name: {host.endpoint.targets[0].host for host in plan.balancer.hosts}
        for name, plan in mesh.plan.clusters.items()
        if name != BOTH
    }


def test_the_endpoints_follow_the_same_answers(envoy: Callable[..., EnvoyServer], tmp_path: Path) -> None:
    server = DnsServer({NAME: ["10.0.0.1"]})
    clusters = [_cluster(kind, family, server) for kind in ("STRICT_DNS", "LOGICAL_DNS") for family in FAMILIES]
    bootstrap = {"static_resources": {"clusters": clusters}}
    (tmp_path / "mesh.yaml").write_text(yaml.safe_dump(bootstrap))
    theirs = envoy(bootstrap)
    answers: list[list[str] | None] = [
        ["10.0.0.1"],
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        ["10.0.0.3", "fd00::1"],
        ["fd00::2"],
        [],  # no data
        ["10.0.0.4", "fd00::4"],
        None,  # no such name
        ["10.0.0.5"],
    ]
    with Mesh.from_file(tmp_path / "mesh.yaml") as mesh:
        mesh.wait_ready()
        for answer in answers:
            server.records = {} if answer is None else {NAME: answer}
            _settle(theirs, mesh, server, answer)
        before = _ours(mesh)
        server.broken.add(NAME)  # SERVFAIL: the last good addresses stay
        asked = server.asked[NAME]
        end = time.monotonic() + 10
        while server.asked[NAME] < asked + 60:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert _ours(mesh) == before == _theirs(theirs)
    server.close()


def _settle(theirs: EnvoyServer, mesh: Mesh, server: DnsServer, answer: list[str] | None) -> None:
    """Both have asked since the answer changed, and agree."""
    wanted = {
        "STRICT_DNS-V4_ONLY": {address for address in answer or () if "." in address},
        "STRICT_DNS-ALL": set(answer or ()),
    }
    end = time.monotonic() + 10
    while True:
        ours, envoys = _ours(mesh), _theirs(theirs)
        if ours == envoys and {**ours, **wanted} == ours:
            return
        different = {name: (ours[name], envoys.get(name)) for name in ours if ours[name] != envoys.get(name)}
        assert time.monotonic() < end, (answer, different)
        time.sleep(0.02)
