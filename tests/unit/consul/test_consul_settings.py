"""Consul's environment: what wins over what, and every form of address."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.errors import ConfigurationError
from meshlib.sources.consul.address import ConsulAddress, parse_consul_address
from meshlib.sources.consul.settings import load_settings


@pytest.mark.parametrize(
    "text, expected",
    [
        ("127.0.0.1:8500", ConsulAddress("127.0.0.1", 8500)),
        ("consul", ConsulAddress("consul", 80)),
        ("http://consul", ConsulAddress("consul", 80)),
        ("https://consul", ConsulAddress("consul", 443, is_https=True)),
        ("https://[::1]:8501", ConsulAddress("::1", 8501, is_https=True)),
        ("[::1]:8500", ConsulAddress("::1", 8500)),
        ("http://proxy:80/consul/", ConsulAddress("proxy", 80, prefix="/consul")),
        ("unix:///run/consul.sock", ConsulAddress("", 0, socket_path="/run/consul.sock")),
    ],
)
def test_addresses(text: str, expected: ConsulAddress) -> None:
    assert parse_consul_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["::1", "unix://run/sock", "ftp://x", "a:b", "a:0", "a:70000", "[::1", "[::1]x", "", "u@h:1", "http://", "a b"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Consul address"):
        parse_consul_address(text)


def test_https_that_was_asked_for_is_never_given_up() -> None:
    assert parse_consul_address("http://consul:8500", wants_https=True).is_https


def test_defaults() -> None:
    settings = load_settings(environ={})
    assert str(settings.address) == "http://127.0.0.1:8500"
    assert settings.headers() == {"Host": "127.0.0.1:8500", "Accept": "application/json", "User-Agent": "meshlib"}


def test_every_variable_counts_and_every_argument_wins(tmp_path: Path) -> None:
    environ = {
        "CONSUL_HTTP_ADDR": "consul:8501",
        "CONSUL_HTTP_TOKEN": "t",
        "CONSUL_HTTP_AUTH": "user:pass",
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_SSL_VERIFY": "false",
        "CONSUL_CACERT": "ca",
        "CONSUL_CAPATH": "cas",
        "CONSUL_CLIENT_CERT": "cert",
        "CONSUL_CLIENT_KEY": "key",
        "CONSUL_TLS_SERVER_NAME": "name",
        "CONSUL_NAMESPACE": "ns",
        "CONSUL_PARTITION": "part",
        "CONSUL_DATACENTER": "dc2",
    }
    found = load_settings(environ=environ)
    assert str(found.address) == "https://consul:8501"
    assert found.headers()["X-Consul-Token"] == "t"
    assert found.headers()["Authorization"] == "Basic dXNlcjpwYXNz"
    assert (found.ca_file, found.ca_path, found.cert_file, found.key_file) == ("ca", "cas", "cert", "key")
    assert (found.tls_server_name, found.verify) == ("name", False)
    assert (found.namespace, found.partition, found.datacenter) == ("ns", "part", "dc2")

    other = load_settings(
        "http://other:1",
        token="",
        http_auth="",
        ca_file="",
        ca_path="",
        cert_file="",
        key_file="",
        tls_server_name="",
        verify=True,
        namespace="",
        partition="",
        datacenter="",
        environ=environ,
    )
    assert other == load_settings("http://other:1", environ={})


def test_an_argument_without_a_scheme_keeps_the_tls_of_the_environment() -> None:
    assert load_settings("other:1", environ={"CONSUL_HTTP_SSL": "1"}).address.is_https


def test_the_order_of_tokens(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("from-file\n")
    other.write_text("from-other")
    environ = {"CONSUL_HTTP_TOKEN": "from-env", "CONSUL_HTTP_TOKEN_FILE": str(file)}
    assert load_settings(environ=environ).current_token() == "from-file"
    assert load_settings(environ=environ, token="given").current_token() == "given"
    assert load_settings(environ=environ, token_file=other).current_token() == "from-other"
    file.write_text("rotated")
    assert load_settings(environ=environ).current_token() == "rotated"
    file.write_text("")
    assert load_settings(environ=environ).current_token() == "from-env", "an empty file says nothing"
    file.unlink()
    with pytest.raises(ConfigurationError, match="token file"):
        load_settings(environ=environ).headers()


@pytest.mark.parametrize(
    "environ",
    [
        {"CONSUL_HTTP_SSL": "yes"},
        {"CONSUL_HTTP_SSL_VERIFY": "off"},
        {"CONSUL_CLIENT_CERT": "cert"},
        {"CONSUL_HTTP_TOKEN": "two words"},
        {"CONSUL_HTTP_TOKEN": "a\r\nX-Evil: 1"},
    ],
)
def test_what_cannot_be_is_said_at_once(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(environ=environ)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(load_settings(environ={"CONSUL_HTTP_TOKEN": "secret"}))
