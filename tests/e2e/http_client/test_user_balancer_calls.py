"""Balancers of the application in whole meshes: by entry point, from code, from a file."""

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.balancing.base import Host
from meshlib.model.lb import UserLbPolicy
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.plugins import register_balancer
from parts.fast_backend import FastBackend


class Last:
    """Takes the last host."""

    def __init__(self, config: Mapping[str, Any], hosts: Sequence[Host]) -> None:
        assert config == {"name": "b2"}
        self.host = hosts[-1]

    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        return self.host


register_balancer("acme.test.Last", Last)


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
            type_url: type.googleapis.com/acme.test.Last
            value: {{name: b2}}
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
