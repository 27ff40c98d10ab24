"""The HTTP/1.1 wire: per-endpoint connection pools, asyncio and sync.

`AsyncPool` and `SyncPool` send one request to one address and return its response, or raise `WireError`. They
decide nothing: no retry but the one RFC 9112 section 9.3.1 allows on a stale kept-alive connection, no routing, no
redirects, no decoding.

    pool = AsyncPool(Address("10.0.0.7", 8080))
    response = await pool.send(WireRequest(b"GET", b"/", [(b"Host", b"payments")]), Timeouts(connect=5.0, read=5.0))
    async for chunk in response: ...

From the bytes up: `reader` (sans-I/O) and `request` know HTTP/1.1; `ledger` (no I/O, no clock) knows who may use
which connection; `aio_*` and `sync_*` are the same three parts twice, a connection, an exchange, a pool, because
what differs is exactly who waits and how.

The engine was chosen by measurement (`python -m benchmarks.parsers`; microseconds, only ratios carry over): for one
small response httptools takes 1.6, a strict regular-expression reader of our own 4.1, h11 48; for 1 000 chunks of 64
bytes 125, 590 and 5 800. httptools is llhttp, Node's parser, strict unless told otherwise; what it leaves to its user
(limits, versions, codings, HEAD, the end of the stream, surplus bytes) is closed in `reader`, for 3 µs more, and
fuzzed against h11. A body of known length bypasses the parser after its first piece: 1 MB costs 16 instead of 40.

Idle connections are kept for Envoy's hour, not httpx's 5 s: one that its server closed is noticed by the event loop, or
by a poll before use, and what slips between is sent again where RFC 9112 allows it.
"""

from meshlib.http.wire.aio_pool import AsyncPool
from meshlib.http.wire.aio_response import AsyncWireResponse
from meshlib.http.wire.network import NetworkInfo
from meshlib.http.wire.reader import ReaderLimits
from meshlib.http.wire.sync_pool import SyncPool
from meshlib.http.wire.sync_response import SyncWireResponse
from meshlib.http.wire.types import (
    NO_TIMEOUTS,
    Address,
    ConnectionEvent,
    ConnectionEventKind,
    FailureKind,
    Gate,
    PoolLimits,
    PoolStats,
    Timeouts,
    WireError,
    WireRequest,
)

__all__ = [
    "NO_TIMEOUTS",
    "Address",
    "AsyncPool",
    "AsyncWireResponse",
    "ConnectionEvent",
    "ConnectionEventKind",
    "FailureKind",
    "Gate",
    "NetworkInfo",
    "PoolLimits",
    "PoolStats",
    "ReaderLimits",
    "SyncPool",
    "SyncWireResponse",
    "Timeouts",
    "WireError",
    "WireRequest",
]
