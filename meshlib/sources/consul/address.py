"""Where a Consul agent listens: `CONSUL_HTTP_ADDR` in all the forms Consul's own clients take."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.errors import ConfigurationError

_FORMS = "'host:port', 'http://host:port', 'https://host:port', '[::1]:8500' or 'unix:///path'"
_DEFAULT_PORTS = {False: 80, True: 443}  # as in Consul's Go client, which leaves a missing port to HTTP


@dataclass(frozen=True, slots=True)
class ConsulAddress:
    """`host` and `port`, or `socket_path`. `prefix` is the path of a reverse proxy, put before every request's path."""

    host: str = "127.0.0.1"
    port: int = 8500
    is_https: bool = False
    socket_path: str = ""
    prefix: str = ""

    @property
    def authority(self) -> str:
        """The Host header."""
        if self.socket_path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        if self.socket_path:
            return f"unix://{self.socket_path}"
        return f"{'https' if self.is_https else 'http'}://{self.authority}{self.prefix}"


def parse_consul_address(text: str, *, wants_https: bool = False) -> ConsulAddress:
    """An agent's address. `wants_https` (`CONSUL_HTTP_SSL`) makes it https whatever it says: TLS that was asked for is
    never given up. Raises `ConfigurationError`.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if scheme == "unix":
        if not rest.startswith("/"):
            raise ConfigurationError(f"Consul address {text!r}: a unix socket needs an absolute path")
        return ConsulAddress(host="", port=0, is_https=wants_https, socket_path=rest)
    if scheme not in ("", "http", "https"):
        raise ConfigurationError(f"Consul address {text!r}: scheme {scheme!r} is unknown; give {_FORMS}")
    is_https = wants_https or scheme == "https"
    location, slash, path = rest.partition("/")
    host, port = _host_and_port(text, location, _DEFAULT_PORTS[is_https])
    return ConsulAddress(host, port, is_https, prefix=f"/{path}".rstrip("/") if slash else "")


def _host_and_port(text: str, location: str, default: int) -> tuple[str, int]:
    if location.startswith("["):
        host, bracket, after = location[1:].partition("]")
        port = after.removeprefix(":") if bracket and after.startswith(":") else after
        valid = bool(bracket) and (not after or after.startswith(":"))
    else:
        host, _, port = location.partition(":")
        valid = ":" not in port
    if not valid or not host or any(c <= " " or c in "@?#" for c in host):
        raise ConfigurationError(f"Consul address {text!r} is none; give {_FORMS}")
    if not port:
        return host, default
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigurationError(f"Consul address {text!r}: port {port!r} is not a number from 1 to 65535")
    return host, int(port)
