"""How to speak to a Consul agent: arguments, then Consul's environment, then its token file, then the defaults.

The order is that of Consul's own clients, so that one environment means the same to all of them: an explicit token
file, an explicit token, `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_HTTP_TOKEN`. (py-consul reads four of these variables, and
lets the token of the environment win over an explicit one.)
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshlib.errors import ConfigurationError
from meshlib.sources.consul.address import ConsulAddress, parse_consul_address

_LOCAL = ConsulAddress()
_TRUE = ("1", "t", "T", "TRUE", "true", "True")  # what Go's ParseBool takes, and no more
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """One agent and how to be let in.

    `token_file` is read again for every request, so that a rotated token counts at once; it goes before `token`.
    `http_auth` is `user:password` for a proxy in front of Consul. TLS: `ca_file`, `ca_path` (a folder), `cert_file` and
    `key_file` for mutual TLS, `tls_server_name` instead of the address's host; `verify=False` checks nothing.
    `namespace` and `partition` are Consul Enterprise's. `datacenter`: the one asked by default (the agent's own).
    """

    address: ConsulAddress = _LOCAL
    token: str = ""
    token_file: str = ""
    http_auth: str = ""
    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    tls_server_name: str = ""
    verify: bool = True
    namespace: str = ""
    partition: str = ""
    datacenter: str = ""

    def headers(self) -> dict[str, str]:
        """What every request carries. Raises `ConfigurationError` when the token file cannot be read."""
        headers = {"Host": self.address.authority, "Accept": "application/json", "User-Agent": "meshlib"}
        if token := self.current_token():
            headers["X-Consul-Token"] = token
        if self.http_auth:
            encoded = base64.b64encode(self.http_auth.encode()).decode("ascii")
            headers["Authorization"] = f"Basic {encoded}"
        return headers

    def current_token(self) -> str:
        """The ACL token, from its file if there is one and it is not empty."""
        if not self.token_file:
            return self.token
        try:
            return _header_value(Path(self.token_file).read_text().strip(), self.token_file) or self.token
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"Consul token file {self.token_file}: {error}") from None

    def __repr__(self) -> str:
        return f"ConsulSettings({self.address}, {'with' if self.token or self.token_file else 'without'} a token)"


def load_settings(
    address: str | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    http_auth: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    ca_path: str | os.PathLike[str] | None = None,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    tls_server_name: str | None = None,
    verify: bool | None = None,
    namespace: str | None = None,
    partition: str | None = None,
    datacenter: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> ConsulSettings:
    """Settings from arguments; what is None comes from `environ` (`os.environ`), then from the defaults.

    Reads `CONSUL_HTTP_ADDR`, `_TOKEN`, `_TOKEN_FILE`, `_AUTH`, `_SSL`, `_SSL_VERIFY`, `CONSUL_CACERT`, `CONSUL_CAPATH`,
    `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY`, `CONSUL_TLS_SERVER_NAME`, `CONSUL_NAMESPACE`, `CONSUL_PARTITION` and
    `CONSUL_DATACENTER`. An empty variable counts as unset, an empty argument as "none". Raises `ConfigurationError`.
    """
    given = _Environment(os.environ if environ is None else environ)
    chosen_token, chosen_file = _token(given, token, token_file)
    settings = ConsulSettings(
        address=_address(given, address),
        token=_header_value(chosen_token, "the Consul token"),
        token_file=chosen_file,
        http_auth=given.text(http_auth, "CONSUL_HTTP_AUTH"),
        ca_file=given.text(ca_file, "CONSUL_CACERT"),
        ca_path=given.text(ca_path, "CONSUL_CAPATH"),
        cert_file=given.text(cert_file, "CONSUL_CLIENT_CERT"),
        key_file=given.text(key_file, "CONSUL_CLIENT_KEY"),
        tls_server_name=given.text(tls_server_name, "CONSUL_TLS_SERVER_NAME"),
        verify=given.flag("CONSUL_HTTP_SSL_VERIFY", default=True) if verify is None else verify,
        namespace=given.text(namespace, "CONSUL_NAMESPACE"),
        partition=given.text(partition, "CONSUL_PARTITION"),
        datacenter=given.text(datacenter, "CONSUL_DATACENTER"),
    )
    if bool(settings.cert_file) != bool(settings.key_file):
        raise ConfigurationError("a Consul client certificate needs both CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY")
    return settings


class _Environment:
    """Reads variables; an empty one is not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, explicit: str | os.PathLike[str] | None, name: str) -> str:
        return os.fspath(explicit) if explicit is not None else self._environ.get(name, "")

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._environ.get(name, "")
        if not value:
            return default
        if value not in (*_TRUE, *_FALSE):
            raise ConfigurationError(f"{name}={value!r} is neither true nor false")
        return value in _TRUE


def _address(given: _Environment, explicit: str | None) -> ConsulAddress:
    if explicit and explicit.startswith("http://"):
        return parse_consul_address(explicit)  # said in so many words: an argument goes before the environment
    text = given.text(explicit, "CONSUL_HTTP_ADDR")
    wants_https = given.flag("CONSUL_HTTP_SSL", default=False)
    return parse_consul_address(text or "127.0.0.1:8500", wants_https=wants_https)


def _token(given: _Environment, token: str | None, file: str | os.PathLike[str] | None) -> tuple[str, str]:
    """The token and the file that goes before it."""
    if file is not None:
        return token or "", os.fspath(file)
    if token is not None:
        return token, ""
    return given.text(None, "CONSUL_HTTP_TOKEN"), given.text(None, "CONSUL_HTTP_TOKEN_FILE")


def _header_value(token: str, where: str) -> str:
    if not token.isascii() or any(c < "!" for c in token):
        raise ConfigurationError(f"{where}: a token is one word of ASCII characters")
    return token
