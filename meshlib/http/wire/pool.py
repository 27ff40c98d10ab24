"""What the two pools share: what they are made with, and what they tell of connections."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Generic, TypedDict, TypeVar

from meshlib.http.wire.ledger import Ledger, Pooled
from meshlib.http.wire.reader import ReaderLimits
from meshlib.http.wire.types import (
    Address,
    ConnectionEvent,
    ConnectionEventKind,
    ConnectionHook,
    FailureKind,
    Gate,
    PoolLimits,
    WireError,
)

C = TypeVar("C", bound=Pooled)
W = TypeVar("W")


class PoolSettings(TypedDict, total=False):
    """`ssl_context` None means plain TCP; `server_hostname` is what SNI says and the certificate must match (default:
    the host). `connections` and `pending` count across the pools of a cluster; `on_connection` hears of
    connections, not of requests.
    """

    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    limits: PoolLimits | None
    reader_limits: ReaderLimits | None
    connections: Gate | None
    pending: Gate | None
    on_connection: ConnectionHook | None


class Pool(Generic[C, W]):
    """One endpoint's pool before anything waits: settings, and the ledger of its connections."""

    def __init__(self, address: Address, settings: PoolSettings) -> None:
        self.address = address
        self.dial: tuple[Address, ...] = (address,)
        """Where connections are opened to: the first that answers. Those that are open stay when it changes."""
        self.closed = False
        self._peer = str(address)
        self._ssl = settings.get("ssl_context")
        self._server_hostname = (settings.get("server_hostname") or address.host) if self._ssl is not None else None
        self._reader_limits = settings.get("reader_limits") or ReaderLimits()
        self._on_connection = settings.get("on_connection")
        limits = settings.get("limits") or PoolLimits()
        gates = settings.get("connections"), settings.get("pending")
        self._new_ledger: Callable[[], Ledger[C, W]] = lambda: Ledger(limits, *gates)
        self._ledger = self._new_ledger()
        self._open: set[C] = set()

    def _closed_error(self) -> WireError:
        return WireError(FailureKind.POOL_CLOSED, f"{self._peer}: the pool is closed")

    def _tell(self, kind: ConnectionEventKind, error: WireError | None = None) -> None:
        if self._on_connection is not None:
            self._on_connection(ConnectionEvent(kind, self.address, error))
