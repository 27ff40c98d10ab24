"""Being let in, against real agents: tokens, TLS, unix sockets, the environment as Consul's own command reads it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from meshlib import NotReadyError
from meshlib.registration import ConsulRegistration
from meshlib.sources.consul import load_settings
from meshlib.sources.consul.agent_api import ConsulApi
from parts.consul_server import ConsulServer
from parts.fast_backend import FastBackend
from parts.registry import path_of
from parts.xds import eventually

pytestmark = pytest.mark.needs("consul")

Backends = Callable[..., FastBackend]
ROOT = "11111111-2222-3333-4444-555555555555"
READER = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
BLIND = 'key_prefix "" { policy = "read" }'


@pytest.fixture
def guarded(consul_factory: Any, fast_backend: Backends) -> ConsulServer:
    """An agent with ACLs, deny by default, and payments in it."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"initial_management": ROOT, "agent": ROOT}}
    consul: ConsulServer = consul_factory(config={"acl": acl}, token=ROOT)
    consul.register("payments", "payments-1", fast_backend("payments").port)
    return consul


def token(consul: ConsulServer, name: str, rules: str) -> str:
    consul.request("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
    made = consul.request("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})
    return str(made["SecretID"])


def calls(mesh: Any) -> str:
    with mesh.http.client("payments") as client:
        return str(client.get("/").json()["name"])


def test_a_token_is_needed_and_its_lack_is_told(guarded: ConsulServer, mesh_of: Any) -> None:
    assert calls(mesh_of(guarded, "payments", token=token(guarded, "reader", READER))) == "payments"
    for other in ("", "99999999-0000-0000-0000-000000000000", token(guarded, "blind", BLIND)):
        mesh = mesh_of(guarded, "payments", token=other, ready=False)
        with pytest.raises(NotReadyError, match=r"403|ACL"):
            mesh.wait_ready(0.6)


def test_a_registration_that_may_not_says_why(
    guarded: ConsulServer, fast_backend: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that refuses is not one that does not answer."""
    settings = load_settings(guarded.address, token=token(guarded, "reader", READER))
    port = fast_backend("payments").port
    with caplog.at_level("WARNING", "meshlib.registration"), ConsulRegistration("a", port=port, settings=settings):
        eventually(lambda: caplog.messages, "it is told")
    assert "the Consul agent refuses: ACLPermissionDenied: Permission denied" in caplog.messages[0]


def test_a_token_that_loses_its_rights_takes_nothing_away(guarded: ConsulServer, mesh_of: Any) -> None:
    """Consul then leaves the instances out of its answer: that is no fact about the service."""
    mesh = mesh_of(guarded, "payments", token=token(guarded, "reader", READER), wait=0.3)
    assert calls(mesh) == "payments"
    policy = guarded.request("GET", "/v1/acl/policy/name/reader")
    guarded.request("PUT", f"/v1/acl/policy/{policy['ID']}", {"Name": "reader", "Rules": BLIND})
    eventually(lambda: mesh.source.stats().failing, "it is noticed")
    assert calls(mesh) == "payments"
    guarded.request("PUT", f"/v1/acl/policy/{policy['ID']}", {"Name": "reader", "Rules": READER})
    eventually(lambda: not mesh.source.stats().failing, "and over")


def test_a_token_file_is_read_again(guarded: ConsulServer, mesh_of: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{token(guarded, 'reader', READER)}\n")
    mesh = mesh_of(guarded, "payments", token_file=file, wait=0.3)
    file.write_text("99999999-0000-0000-0000-000000000000")
    eventually(lambda: mesh.source.stats().failing, "a token that is none")
    assert calls(mesh) == "payments"
    file.write_text(token(guarded, "second", READER))
    eventually(lambda: not mesh.source.stats().failing, "the new one")


def as_consul_reads(environment: dict[str, str], *arguments: str) -> str:
    """The token that Consul's own command uses."""
    command = [path_of("consul"), "acl", "token", "read", "-self", "-format=json", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=20)
    return str(json.loads(done.stdout)["SecretID"]) if done.returncode == 0 else f"refused: {done.stderr.split()[-1]}"


def test_the_environment_means_what_it_means_to_consuls_own_command(guarded: ConsulServer, tmp_path: Path) -> None:
    first, second, third = (token(guarded, name, READER) for name in ("a", "b", "c"))
    file, other = tmp_path / "token", tmp_path / "other"
    file.write_text(f" {second}\n")
    other.write_text(third)
    address = {"CONSUL_HTTP_ADDR": guarded.address}
    both = {**address, "CONSUL_HTTP_TOKEN": first, "CONSUL_HTTP_TOKEN_FILE": str(file)}
    cases: list[tuple[dict[str, str], list[str], dict[str, Any]]] = [
        ({**address, "CONSUL_HTTP_TOKEN": first}, [], {}),
        ({**address, "CONSUL_HTTP_TOKEN_FILE": str(file)}, [], {}),
        (both, [], {}),
        (both, [f"-token={third}"], {"token": third}),
        (both, [f"-token-file={other}"], {"token_file": other}),
        (both, [f"-token={first}", f"-token-file={other}"], {"token": first, "token_file": other}),
        ({**both, "CONSUL_HTTP_ADDR": f"http://{guarded.address}"}, [], {}),
        ({**both, "CONSUL_HTTP_TOKEN_FILE": ""}, [], {}),
    ]
    for environment, arguments, explicit in cases:
        settings = load_settings(environ=environment, **explicit)
        assert settings.current_token() == as_consul_reads(environment, *arguments), (environment, explicit)
        assert ConsulApi(settings).acl.token.read("self")["SecretID"] == settings.current_token()


def files_of(ca: trustme.CA, folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key", "client", "client_key")}
    ca.cert_pem.write_to_path(str(files["ca"]))
    server, client = ca.issue_cert("consul.internal"), ca.issue_cert("client.internal")
    server.cert_chain_pems[0].write_to_path(str(files["cert"]))
    server.private_key_pem.write_to_path(str(files["key"]))
    client.cert_chain_pems[0].write_to_path(str(files["client"]))
    client.private_key_pem.write_to_path(str(files["client_key"]))
    return files


def test_tls_both_ways(
    consul_factory: Any, fast_backend: Backends, mesh_of: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    files = files_of(trustme.CA(), tmp_path)
    consul = consul_factory(https=(files["ca"], files["cert"], files["key"]))
    consul.register("payments", "payments-1", fast_backend("payments").port)
    address = f"{consul.host}:{consul.port}"
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    monkeypatch.setenv("CONSUL_CACERT", str(files["ca"]))
    monkeypatch.setenv("CONSUL_CLIENT_CERT", str(files["client"]))
    monkeypatch.setenv("CONSUL_CLIENT_KEY", str(files["client_key"]))
    with pytest.raises(NotReadyError, match=r"(?i)certificate verify failed"):
        mesh_of(address, "payments", ready=False).wait_ready(0.5)
    monkeypatch.setenv("CONSUL_TLS_SERVER_NAME", "consul.internal")
    assert calls(mesh_of(address, "payments")) == "payments"
    assert ConsulApi(load_settings(address)).agent.services()["payments-1"]["Service"] == "payments"
    monkeypatch.delenv("CONSUL_TLS_SERVER_NAME")
    assert calls(mesh_of(address, "payments", verify=False)) == "payments"


def test_a_unix_socket(consul_factory: Any, fast_backend: Backends, mesh_of: Any, tmp_path: Path) -> None:
    path = tmp_path / "consul.sock"
    consul = consul_factory(config={"addresses": {"http": f"127.0.0.1 unix://{path}"}})
    consul.register("payments", "payments-1", fast_backend("payments").port)
    assert calls(mesh_of(f"unix://{path}", "payments")) == "payments"
    assert "payments-1" in ConsulApi(load_settings(f"unix://{path}")).agent.services()


def test_another_datacenter_is_asked_and_failed_over_to(
    consul_factory: Any, fast_backend: Backends, mesh_of: Any
) -> None:
    here, there = consul_factory(), consul_factory(datacenter="dc2")
    near, far = fast_backend("near"), fast_backend("far")
    here.register("payments", "payments-1", near.port)
    there.register("payments", "payments-1", far.port)
    here.write("service-defaults", "payments", Protocol="http")
    here.write("service-resolver", "payments", Failover={"*": {"Datacenters": ["dc2"]}})
    mesh = mesh_of(here, "payments")
    assert calls(mesh) == "near"  # dc2 cannot be reached yet: no reason to wait for it
    here.request("PUT", f"/v1/agent/join/127.0.0.1:{there.serf_wan}?wan=1")

    def asked_there() -> bool:
        with mesh.http.client() as client:
            found = client.get("http://payments.service.dc2.consul/")
            return bool(found.json()["name"] == "far")

    eventually(lambda: not mesh.source.stats().failing, "the datacenters have joined", 30)
    assert asked_there()
    assert calls(mesh) == "near"
    here.deregister("payments-1")
    eventually(lambda: calls(mesh) == "far", "the other datacenter takes over")
    assert calls(mesh_of(here, "payments", datacenter="dc2")) == "far"


@pytest.mark.parametrize("consistency", ["stale", "consistent", "cached"])
def test_every_mode_of_consistency(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any, consistency: str
) -> None:
    backend = fast_backend("one")
    consul.register(name, f"{name}-1", backend.port)
    mesh = mesh_of(consul, name, consistency=consistency, max_staleness=5.0)
    other = fast_backend("two")
    consul.register(name, f"{name}-2", other.port)
    with mesh.http.client(name) as client:
        eventually(lambda: client.get("/").json()["name"] == "two", "a change arrives")
    assert mesh.source.stats().failures == 0
