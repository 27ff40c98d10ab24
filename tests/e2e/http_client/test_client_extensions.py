"""Extensions of a request that reach below httpx: `trace` hears of each step, `sni_hostname` is asked for in TLS."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from e2e.http_client.doors import Door, caught
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh, UpstreamConnectError
from meshlib.http.tls import default_context
from meshlib.model.cluster import UpstreamTls
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
Raw = Callable[..., RawServer]

CONNECT = "connection.connect_tcp"
EXCHANGE = [
    "http11.send_request_headers",
    "http11.send_request_body",
    "http11.receive_response_headers",
    "http11.receive_response_body",
    "http11.response_closed",
]


class Told:
    """What a `trace` extension was told."""

    def __init__(self, door: Door) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.hook = door.hook(lambda name, info: self.events.append((name, info)))

    @property
    def names(self) -> list[str]:
        """Every event, and that it has ended."""
        return [name for name, _ in self.events]

    def info(self, name: str) -> dict[str, Any]:
        return next(info for known, info in self.events if known == name)


def steps(*names: str) -> list[str]:
    return [f"{name}.{how}" for name in names for how in ("started", "complete")]


def inside(names: list[str]) -> list[str]:
    """The library closes a body from inside its reading or after it: the order of those two is its own."""
    return sorted(names[-4:]) if len(names) > 3 else names


# ---------------------------------------------------------------------- trace


def test_each_step_is_told_and_a_kept_connection_is_not_opened_again(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    backend = fast_backend("b", Reply(201, b"made"))
    client = door.client(static({"payments": [backend.address]}))
    first, second = Told(door), Told(door)
    assert client.get("/", extensions={"trace": first.hook}).content == b"made"
    client.post("/", content=b"whole", extensions={"trace": second.hook})
    assert first.names[:8] == steps(CONNECT, *EXCHANGE[:3])
    assert inside(first.names) == sorted(steps(*EXCHANGE[3:]))
    assert second.names[:6] == steps(*EXCHANGE[:3])
    opened = first.info(f"{CONNECT}.started")
    assert f"{opened['host']}:{opened['port']}" == backend.address
    assert first.info(f"{CONNECT}.complete")["return_value"].get_extra_info("server_addr")[1] == opened["port"]
    assert first.info("http11.send_request_headers.started")["request"].url.path == "/"
    version, status, _, headers = first.info("http11.receive_response_headers.complete")["return_value"]
    assert (version, status) == (b"HTTP/1.1", 201)
    assert any(name.lower() == b"content-length" for name, _ in headers)


def test_a_streamed_exchange_is_told_as_it_goes(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b")
    client, told = door.client(static({"payments": [backend.address]})), Told(door)
    response = client.open("POST", "/", content=door.body([b"a", b"b"]), extensions={"trace": told.hook})
    assert told.names == steps(CONNECT, *EXCHANGE[:3])
    assert b"".join(client.chunks(response, "raw"))
    client.close_response(response)
    assert inside(told.names) == sorted(steps(*EXCHANGE[3:]))
    assert backend.requests[0].body == b"ab"


def test_without_a_hook_nothing_is_put_around_the_body(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend().address]}))
    response = client.open("GET", "/")
    assert "Traced" not in type(getattr(response.stream, "_stream", response.stream)).__name__
    client.read(response)


def test_a_step_that_fails_is_told_with_its_error(door: Door, static: Static, free_port: Callable[[], int]) -> None:
    client, told = door.client(static({"payments": [f"127.0.0.1:{free_port()}"]}, retries=0)), Told(door)
    with pytest.raises(UpstreamConnectError):
        client.get("/", extensions={"trace": told.hook})
    assert told.names == [f"{CONNECT}.started", f"{CONNECT}.failed"]
    assert "connect" in str(told.info(f"{CONNECT}.failed")["exception"])


def test_every_attempt_is_told(door: Door, static: Static, fast_backend: Fast) -> None:
    answers = iter([Reply(503), Reply()])
    backend = fast_backend("b", lambda request: next(answers))
    client, told = door.client(static({"payments": [backend.address]}, retries=1)), Told(door)
    assert client.get("/", extensions={"trace": told.hook}).status_code == 200
    assert told.names.count("http11.receive_response_headers.complete") == 2


@pytest.mark.parametrize(
    "event",
    [
        f"{CONNECT}.started",
        f"{CONNECT}.complete",
        "http11.send_request_headers.complete",
        "http11.receive_response_headers.complete",
        "http11.receive_response_body.started",
    ],
)
def test_what_a_hook_raises_ends_the_call_and_everything_is_given_back(
    door: Door, static: Static, fast_backend: Fast, event: str
) -> None:
    backend = fast_backend()

    def hook(name: str, info: dict[str, Any]) -> None:
        if name == event:
            raise LookupError(name)

    client = door.client(static({"payments": [backend.address]}, retries=2))
    with pytest.raises(LookupError, match=event):
        client.get("/", extensions={"trace": door.hook(hook)})
    assert client.get("/").status_code == 200


def test_a_hook_of_the_wrong_kind_is_refused(door: Door, static: Static, fast_backend: Fast) -> None:
    async def asynchronous(name: str, info: dict[str, Any]) -> None:
        """A hook for the other doors."""

    def blocking(name: str, info: dict[str, Any]) -> None:
        """A hook for the other doors."""

    wrong: Any = blocking if door.asynchronous else asynchronous
    client = door.client(static({"payments": [fast_backend().address]}))
    with pytest.raises(TypeError, match="`trace` extension"):
        client.get("/", extensions={"trace": wrong})


# ---------------------------------------------------------------------- sni_hostname

NAME = "real.test"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority the system trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    default_context.cache_clear()
    yield made
    default_context.cache_clear()


@pytest.fixture
def asked(authority: trustme.CA, raw: Raw) -> tuple[str, list[str | None]]:
    """A server with a certificate for NAME: its address, and the names clients asked for."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    context.sni_callback = lambda sock, name, context: names.append(name)

    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    return f"127.0.0.1:{raw(script, context=context).port}", names


def test_it_takes_the_place_of_the_urls_host(door: Door, static: Static, asked: tuple[str, list[str | None]]) -> None:
    address, names = asked
    client = door.client(static({"payments": [address]}, retries=0), "https://payments")
    assert client.get("/", extensions={"sni_hostname": NAME}).text == "ok"
    with pytest.raises(UpstreamConnectError, match="Hostname mismatch"):
        client.get("/")
    assert client.get("/", extensions={"sni_hostname": NAME}).text == "ok", "a connection of its own, which was kept"
    assert names == [NAME, "payments"]


def test_the_clusters_own_tls_wins(door: Door, static: Static, asked: tuple[str, list[str | None]]) -> None:
    address, names = asked
    tls = UpstreamTls(sni="cluster.test")
    mesh = static({"payments": dataclasses.replace(static_cluster("payments", [address]), tls=tls)})
    for url in ("https://payments/", "http://payments/"):
        assert door.client(mesh).get(url, extensions={"sni_hostname": NAME}).text == "ok"
    assert set(names) == {"cluster.test"}


def test_it_means_nothing_to_plain_http(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend().address]}))
    assert client.get("/", extensions={"sni_hostname": NAME}).status_code == 200


def test_hosts_outside_the_mesh_keep_both(door: Door, static: Static, fast_backend: Fast) -> None:
    backend, told = fast_backend(), Told(door)
    client = door.client(static({}), "")
    assert caught(lambda: client.get(f"http://{backend.address}/", extensions={"trace": told.hook})).status_code == 200
    assert "http11.send_request_headers.started" in told.names
