"""Hosts and methods that cannot be: an error of ours or the library's, never a bare UnicodeError."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.http_client.doors import Door
from meshlib import Mesh, NoHealthyUpstreamError, UpstreamConnectError
from parts.fast_backend import FastBackend

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
TOO_LONG = "a" * 64  # a label may have 63
BAD_HOSTS = [TOO_LONG, f"{TOO_LONG}.test", "a..b", "xn--zzzzzzzz", "xn--a-\u00e9", "\u2603" * 70, "a\u200db"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", BAD_HOSTS, ids=ascii)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_host_that_cannot_be_outside_the_mesh(
    door: Door, static: Static, method: str, host: str, scheme: str
) -> None:
    client = door.client(static({"payments": ["127.0.0.1:1"]}), "")
    with pytest.raises((door.error("InvalidURL"), door.error("TransportError"))):
        client.request(method, f"{scheme}://{host}/")


@pytest.mark.parametrize("host", [TOO_LONG, "a..b"])
def test_a_host_that_cannot_be_asked_for_in_tls(door: Door, static: Static, fast_backend: Fast, host: str) -> None:
    client = door.client(static({host: [fast_backend().address]}, retries=0), "")
    assert client.get(f"http://{host}/").status_code == 200
    with pytest.raises(UpstreamConnectError):
        client.get(f"https://{host}/")


@pytest.mark.parametrize("host", [TOO_LONG, "a..b"])
def test_an_endpoint_whose_name_cannot_be_looked_up(door: Door, static: Static, host: str) -> None:
    client = door.client(static({"payments": [f"{host}:80"]}, retries=0))
    with pytest.raises(NoHealthyUpstreamError) as failed:  # a name without addresses is no endpoint
        client.get("/")
    assert isinstance(failed.value, door.error("ConnectError"))


def test_a_method_that_cannot_be(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend().address]}))
    with pytest.raises(door.error("LocalProtocolError")):
        client.request("GR\u00dcSS", "/")


def test_a_body_that_cannot_be_encoded_is_the_callers_own_error(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend().address]}))
    with pytest.raises(UnicodeEncodeError):
        client.post("/", content="\ud800")
