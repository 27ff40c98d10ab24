"""Balancers of the application: asked, and watched."""

import logging
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.balancing.base import Host
from meshlib.model.lb import UserLbPolicy
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.plugins import register_balancer
from parts.balancing import Bench, address, flat
from parts.fast_backend import FastBackend


class LastOnes:
    """Takes the last `count` hosts in turn."""

    def __init__(self, config: Mapping[str, Any], hosts: Sequence[Host]) -> None:
        self.hosts = hosts[-int(config["count"]) :]
        self.turn = 0

    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        self.turn += 1
        return self.hosts[self.turn % len(self.hosts)]


class Raising(LastOnes):
    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        raise RuntimeError("on strike")


class Stranger(LastOnes):
    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        return "10.9.9.9:1"


class Nobody(LastOnes):
    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        return None


register_balancer("acme.test.LastOnes", LastOnes)
register_balancer("acme.test.Raising", Raising)
register_balancer("acme.test.Stranger", Stranger)
register_balancer("acme.test.Nobody", Nobody)


def policy(name: str, **config: object) -> UserLbPolicy:
    return UserLbPolicy(f"acme.test.{name}", Struct.of(config))


def test_a_registered_balancer_is_built_with_its_configuration_and_the_hosts_to_use() -> None:
    bench = Bench(flat(5), lb_policy=policy("LastOnes", count=2))
    assert bench.picks(20) == {address(3): 10, address(4): 10}
    bench.eject(address(4))
    assert bench.picks(20) == {address(2): 10, address(3): 10}


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("Raising", {"count": 1}, "on strike"),
        ("Stranger", {"count": 1}, "none of its hosts"),
        ("Nobody", {"count": 1}, "none of its hosts"),
        ("LastOnes", {}, "cannot be built"),  # a configuration that it does not understand
        ("Unknown", {}, "no balancer 'acme.test.Unknown' is registered"),
    ],
)
def test_one_that_fails_is_told_about_once_and_requests_go_round_robin(
    caplog: pytest.LogCaptureFixture, name: str, config: dict[str, object], said: str
) -> None:
    with caplog.at_level(logging.ERROR, "meshlib"):
        bench = Bench(flat(4), lb_policy=policy(name, **config))
        assert bench.picks(20) == {address(number): 5 for number in range(4)}
    (record,) = caplog.records
    assert said in (record.getMessage() + str(record.exc_info))


def test_from_code_and_by_entry_point_of_an_installed_distribution(
    fast_backend: Callable[..., FastBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Mesh.static` with a balancer that only an entry point leads to; httpx over the mesh, to real backends."""
    (tmp_path / "acme_lb.py").write_text(
        "class First:\n"
        "    def __init__(self, config, hosts):\n"
        "        self.host = max(hosts, key=lambda host: host.address)\n"
        "    def pick(self, request_hash, rng, attempt=0):\n"
        "        return self.host\n"
    )
    info = tmp_path / "acme_lb-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lb\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[meshlib.balancers]\nacme.entry.First = acme_lb:First\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    backends = [fast_backend(f"b{number}") for number in range(4)]
    last = max(backends, key=lambda backend: backend.address)
    addresses = [backend.address for backend in backends]
    try:
        with (
            Mesh.static({"up": addresses}, lb_policy=UserLbPolicy("acme.entry.First")) as mesh,
            mesh.http.client() as http,
        ):
            assert {http.get("http://up/").headers["x-backend"] for _ in range(8)} == {last.name}
    finally:
        sys.modules.pop("acme_lb", None)


def test_from_a_file(tmp_path: Path) -> None:
    endpoints = "\n".join(
        f"        - endpoint: {{address: {{socket_address: {{address: 10.0.0.{number}, port_value: 80}}}}}}"
        for number in (1, 2, 3)
    )
    (tmp_path / "mesh.yaml").write_text(
        f"""
static_resources:
  clusters:
  - name: up
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: gone
          typed_config:
            "@type": type.googleapis.com/xds.type.v3.TypedStruct
            type_url: type.googleapis.com/acme.test.NotInstalled
            value: {{}}
      - typed_extension_config:
          name: last
          typed_config:
            "@type": type.googleapis.com/xds.type.v3.TypedStruct
            type_url: type.googleapis.com/acme.test.LastOnes
            value: {{count: 1}}
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
{endpoints}
"""
    )
    with Mesh.from_file(tmp_path / "mesh.yaml") as mesh:
        mesh.wait_ready()
        (issue,) = mesh.issues
        assert "NotInstalled is not supported; last is used" in issue.reason
        balancer = mesh.plan.clusters["up"].balancer
        picks = {balancer.pick(None, EMPTY_STRUCT, random.Random(1)) for _ in range(6)}
    assert {host and host.address for host in picks} == {"10.0.0.3:80"}
