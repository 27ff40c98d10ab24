"""What is known of the connection under a response, under the names httpcore's network streams use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_NAMES = {"server_addr": "peername", "client_addr": "sockname"}


class NetworkInfo:
    """`get_extra_info` of httpx's `network_stream` extension: server_addr, client_addr, ssl_object, socket."""

    __slots__ = ("_lookup",)

    def __init__(self, lookup: Callable[[str], Any]) -> None:
        self._lookup = lookup

    def get_extra_info(self, info: str) -> Any:
        """The named fact, None when it is not known."""
        return self._lookup(_NAMES.get(info, info))

    @property
    def peer(self) -> Any:
        """The server's address as the socket gives it."""
        return self._lookup("peername")

    @property
    def local(self) -> Any:
        """Our own address as the socket gives it."""
        return self._lookup("sockname")

    @property
    def tls(self) -> Any:
        """`ssl.SSLObject` (asyncio) or `ssl.SSLSocket` (sync), None on plain TCP."""
        return self._lookup("ssl_object")
