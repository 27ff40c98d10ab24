"""What a connection to a control plane can be: TLS, tokens, rotated files, frozen peers; and how a process ends."""

import base64
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from meshlib.model.backoff import BackoffPolicy
from meshlib.sources.xds.bootstrap import Bootstrap, Credentials, XdsServer
from meshlib.sources.xds.events import ResourceUpdate, StreamEnded
from meshlib.sources.xds.transport import ChannelOptions, XdsClient
from parts.go_control_plane import GoControlPlane
from parts.registry import path_of
from parts.xds import CLUSTER, Events, as_json, cluster, endpoints, eventually, resources

FAST = BackoffPolicy(base=0.05, maximum=0.2)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *(path_of("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def jwt(expires_in: float) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + expires_in}).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


class TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Notes the authorization of each stream."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.seen.append(dict(details.invocation_metadata).get("authorization", ""))
        return continuation(details)


@pytest.mark.needs("openssl")
def test_tls_both_ways_and_rotation_of_what_is_trusted(tmp_path: Path) -> None:
    server_pem, server_key = make_certificate(tmp_path, "server")
    client_pem, client_key = make_certificate(tmp_path, "client")
    credentials = grpc.ssl_server_credentials(
        [(server_key.read_bytes(), server_pem.read_bytes())],
        root_certificates=client_pem.read_bytes(),
        require_client_auth=True,
    )
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(client_pem.read_bytes())  # the wrong one at first
    config = {
        "ca_certificate_file": str(trusted),
        "certificate_file": str(client_pem),
        "private_key_file": str(client_key),
    }
    events = Events()
    with AdsServer(ResourceStore(resources(cluster("a"))), "localhost:0", credentials=credentials) as server:
        bootstrap = Bootstrap((XdsServer(f"localhost:{server.port}", Credentials("tls", config)),))
        client = XdsClient(bootstrap, lambda *_: None, events, backoff=FAST)
        try:
            client.subscribe(CLUSTER, "a")
            assert events.wait_for(StreamEnded).is_failure
            trusted.write_bytes(server_pem.read_bytes())
            events.wait_for(ResourceUpdate, name="a")
        finally:
            client.close()


@pytest.mark.needs("openssl")
def test_a_token_is_read_anew_for_each_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = make_certificate(tmp_path, "server")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), pem.read_bytes())])
    check = TokenCheck()
    make_server = grpc.server
    monkeypatch.setattr(grpc, "server", lambda pool, **options: make_server(pool, interceptors=[check], **options))
    token = tmp_path / "token"
    token.write_text(expired := jwt(-5))
    creds = XdsServer(
        "",
        Credentials("tls", {"ca_certificate_file": str(pem)}),
        (Credentials("jwt_token_file", {"jwt_token_file": str(token)}),),
    )
    store = ResourceStore(resources(cluster("a")))
    server = AdsServer(store, "localhost:0", credentials=credentials).start()
    address = f"localhost:{server.port}"
    bootstrap = Bootstrap((XdsServer(address, creds.channel_creds, creds.call_creds),))
    events = Events()
    client = XdsClient(bootstrap, lambda *_: None, events, backoff=FAST)
    try:
        client.subscribe(CLUSTER, "a")
        assert "the token expired" in events.wait_for(StreamEnded).reason
        assert check.seen == [], "an expired token is not sent"
        token.write_text(first := jwt(3600))
        events.wait_for(ResourceUpdate, name="a")
        token.write_text(second := jwt(7200))
        server.stop()
        store.replace(resources(cluster("a", connect_timeout=2.0)))
        with AdsServer(store, address, credentials=credentials):
            events.wait_for(ResourceUpdate, name="a", count=2)
        assert [f"Bearer {first}", f"Bearer {second}"] == [check.seen[0], check.seen[-1]]
        assert expired not in " ".join(check.seen)
    finally:
        client.close()


@pytest.mark.needs("go_control_plane")
def test_a_frozen_peer_is_found_by_keepalive(go_control_plane: Callable[..., GoControlPlane]) -> None:
    control_plane = go_control_plane()
    control_plane.write(as_json(cluster("a"), endpoints("a")))
    events = Events()
    options = ChannelOptions(keepalive_time=1.0, keepalive_timeout=0.5, connect_timeout=1.0)
    client = XdsClient(
        Bootstrap((XdsServer(control_plane.target),)), lambda *_: None, events, backoff=FAST, options=options
    )
    try:
        client.subscribe(CLUSTER, "a")
        events.wait_for(ResourceUpdate, name="a")
        control_plane.pause()
        events.wait_for(StreamEnded, timeout=20.0)
        assert client.stats().types[CLUSTER].resources == 1, "the last good is kept"
        control_plane.resume()
        eventually(lambda: client.stats().connected, "the stream to be back")
    finally:
        client.close()


LEAVES_WITHOUT_CLOSING = textwrap.dedent(
    """
    import threading
    from meshlib.control.ads_server import AdsServer, ResourceStore
    from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
    from meshlib.sources.xds.transport import XdsClient
    from meshlib.sources.xds.types import CLUSTER

    came = threading.Event()
    server = AdsServer(ResourceStore()).start()
    client = XdsClient(Bootstrap((XdsServer(f"127.0.0.1:{server.port}"),)), lambda *_: None, lambda _: came.set())
    client.subscribe(CLUSTER, "*")
    assert came.wait(10)
    print("leaving")
    """
)


def test_a_process_that_closes_nothing_ends_at_once_and_quietly() -> None:
    root = Path(__file__).resolve().parents[3]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_WITHOUT_CLOSING], cwd=root, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "leaving", "")
    assert time.monotonic() - started < 10


def test_importing_the_pure_part_imports_neither_grpc_nor_protobuf() -> None:
    root = Path(__file__).resolve().parents[3]
    code = (
        "import sys, meshlib.sources.xds.session, meshlib.sources.xds.bootstrap;"
        "print([m for m in ('grpc', 'google.protobuf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr
