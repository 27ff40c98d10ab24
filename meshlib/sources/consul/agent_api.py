"""py-consul on a transport of our own: its whole API, with the settings, TLS, unix sockets and limits of the source.

py-consul's own transport knows four variables of Consul's environment, lets `CONSUL_HTTP_TOKEN` win over an explicit
token, and has neither unix sockets nor addresses of IPv6. What it does well is kept: the API itself.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from consul import base

from meshlib.sources.consul.address import ConsulAddress
from meshlib.sources.consul.settings import ConsulSettings, load_settings
from meshlib.sources.consul.tls import tls_context, tls_server_name

__all__ = ["ConsulApi"]

_SECONDS = 5.0

Callback = Callable[[Any], Any]
Params = Sequence[tuple[str, Any]] | None


class ConsulApi(base.Consul):  # type: ignore[misc]  # py-consul ships no types
    """`consul.Consul` by meshlib's settings: `ConsulApi().kv.put(...)`, `.config.set(...)`, `.agent.services()`.

    `settings`: None reads Consul's environment. `timeout` of each request in seconds, connecting included; what goes
    wrong on the way is an `OSError`, what Consul refuses py-consul's `ConsulException`. Safe in several threads: each
    request has a connection of its own.
    """

    def __init__(self, settings: ConsulSettings | None = None, *, timeout: float = _SECONDS) -> None:
        self._settings = settings or load_settings()
        self._timeout = timeout
        super().__init__("127.0.0.1", 8500, scheme="http", verify=True, dc=self._settings.datacenter or None)
        self.token = None  # py-consul has taken it from the environment; the transport knows the right one

    @property
    def address(self) -> ConsulAddress:
        """The agent's."""
        return self._settings.address

    def http_connect(self, host: str, port: int, scheme: str, verify: bool | str = True, cert: Any = None) -> Any:
        """py-consul's seam for a transport."""
        return _Transport(self._settings, self._timeout)


def is_refusal(error: Exception) -> bool:
    """Whether Consul means it (a 4xx): asked again it says the same."""
    return isinstance(error, base.ConsulException) and type(error) is not base.ConsulException


class _Transport(base.HTTPClient):  # type: ignore[misc]
    def __init__(self, settings: ConsulSettings, timeout: float) -> None:
        super().__init__()
        self._settings = settings
        self._timeout = timeout

    def get(self, callback: Callback, path: str, params: Params = None, headers: Any = None, raw: bool = False) -> Any:
        return callback(self._exchange("GET", path, params, headers, None, raw))

    def put(
        self, callback: Callback, path: str, params: Params = None, data: str | bytes = "", headers: Any = None
    ) -> Any:
        return callback(self._exchange("PUT", path, params, headers, data))

    def delete(
        self, callback: Callback, path: str, params: Params = None, data: str | bytes = "", headers: Any = None
    ) -> Any:
        return callback(self._exchange("DELETE", path, params, headers, data))

    def post(
        self, callback: Callback, path: str, params: Params = None, data: str | bytes = "", headers: Any = None
    ) -> Any:
        return callback(self._exchange("POST", path, params, headers, data))

    def close(self) -> None:
        """Nothing is kept open."""

    def _exchange(
        self,
        method: str,
        path: str,
        params: Params,
        headers: Mapping[str, str] | None,
        data: str | bytes | None,
        raw: bool = False,
    ) -> Any:
        target = self._settings.address.prefix + quote(path, safe="/:")  # as py-consul does it
        target = f"{target}?{urlencode(params)}" if params else target
        connection = _Connection(self._settings, self._timeout)
        try:
            body = data.encode() if isinstance(data, str) else data
            connection.request(method, target, body, {**self._settings.headers(), **(headers or {})})
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{self._settings.address}: {error!r}") from error
        finally:
            connection.close()
        return base.Response(response.status, response.headers, content if raw else content.decode("utf-8", "replace"))


class _Connection(http.client.HTTPConnection):
    """By any address a Consul agent may have."""

    def __init__(self, settings: ConsulSettings, timeout: float) -> None:
        super().__init__(settings.address.host or "localhost", settings.address.port or None, timeout=timeout)
        self._settings = settings

    def connect(self) -> None:
        address = self._settings.address
        if address.socket_path:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(address.socket_path)
        else:
            super().connect()
        if context := tls_context(self._settings):
            self.sock = context.wrap_socket(self.sock, server_hostname=tls_server_name(self._settings))
