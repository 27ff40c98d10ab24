"""The store of a shared limit, by the library `limits`: sync and asyncio, with small timeouts and one error.

What is avoided here: a synchronous client on an event loop; an asyncio client used from a second loop; no timeout at
all; redis-py's own retries, whose default depends on its version and on how the client is made, and which would turn a
dead Redis into seconds per call; a connection for each of a thousand calls at once.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from limits import RateLimitItem
    from limits.aio.strategies import RateLimiter as AsyncRateLimiter
    from limits.strategies import RateLimiter
    from limits.util import WindowStats

Strategy = Literal["fixed", "sliding", "moving"]
STRATEGIES: Mapping[Strategy, str] = {
    "fixed": "fixed-window",
    "sliding": "sliding-window-counter",
    "moving": "moving-window",
}

MAX_CONNECTIONS = 32
"""To one Redis from one process (asyncio: from one event loop). Further hits wait for one, within the timeout."""


class StoreUnavailableError(Exception):
    """The store did not answer, or not in time."""


class LimitStore:
    """Counts hits of one limit in one store. One asyncio client per event loop, one sync client per process."""

    def __init__(self, item: RateLimitItem, uri: str, strategy: Strategy, timeout: float) -> None:
        self._item = item
        self._uri = uri.removeprefix("async+")
        self._strategy = STRATEGIES[strategy]
        self._timeout = timeout
        self._sync: dict[int, RateLimiter] = {}
        self._async: WeakKeyDictionary[AbstractEventLoop, AsyncRateLimiter] = WeakKeyDictionary()

    def hit(self, *key: str, figures: bool = True) -> tuple[bool, int | None, float | None]:
        """(Admitted, what remains, seconds until the window resets); blocks for at most a few timeouts.

        Raises StoreUnavailableError. The window's figures are a second question, as dear as the first: None if it is
        not to be asked (`figures` False), or if only it fails.
        """
        errors = _store_errors()
        limiter = self._limiter()
        try:
            admitted = limiter.hit(self._item, *key)
        except errors as error:
            raise _unavailable(error) from error
        if not figures:
            return admitted, None, None
        try:
            stats = limiter.get_window_stats(self._item, *key)
        except errors:
            return admitted, None, None
        return admitted, *self._figures(stats)

    async def ahit(self, *key: str, figures: bool = True) -> tuple[bool, int | None, float | None]:
        """As `hit`, on the running loop; both questions together take at most the timeout."""
        import asyncio

        errors = _store_errors()
        loop = asyncio.get_running_loop()
        if loop not in self._async:
            await self._forget_closed_loops()
        limiter = self._async_limiter(loop)
        admitted = None
        try:
            async with asyncio.timeout(self._timeout):
                admitted = await limiter.hit(self._item, *key)
                if not figures:
                    return admitted, None, None
                stats = await limiter.get_window_stats(self._item, *key)
        except errors as error:
            if admitted is None:
                raise _unavailable(error) from error
            return admitted, None, None
        return admitted, *self._figures(stats)

    def close(self) -> None:
        """Close this process's sync connections."""
        limiter = self._sync.pop(os.getpid(), None)
        client: Any = getattr(limiter.storage, "storage", None) if limiter is not None else None
        if hasattr(client, "connection_pool"):  # the memory store has nothing to close
            client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close the running loop's connections, and the sync ones."""
        import asyncio

        await _disconnect(self._async.pop(asyncio.get_running_loop(), None))
        self.close()

    def _limiter(self) -> RateLimiter:
        pid = os.getpid()  # a connection inherited through a fork must not be shared with the parent
        limiter = self._sync.get(pid)
        if limiter is None:
            from limits.storage import storage_from_string
            from limits.strategies import STRATEGIES as KNOWN

            storage = storage_from_string(self._uri, **self._options(asynchronous=False))
            limiter = self._sync.setdefault(pid, KNOWN[self._strategy](storage))
        return limiter

    def _async_limiter(self, loop: AbstractEventLoop) -> AsyncRateLimiter:
        limiter = self._async.get(loop)
        if limiter is None:
            from limits.aio.strategies import STRATEGIES as KNOWN
            from limits.storage import storage_from_string

            storage: Any = storage_from_string(f"async+{self._uri}", **self._options(asynchronous=True))
            strategy: Any = KNOWN[self._strategy]  # typed as the abstract base there
            limiter = self._async.setdefault(loop, strategy(storage))
        return limiter

    async def _forget_closed_loops(self) -> None:
        """Let go of clients whose loop has ended (`asyncio.run` again and again): their connections know the loop, so
        it would never be collected as a key. Their sockets are closed as they are freed.
        """
        for loop in [loop for loop in list(self._async) if loop.is_closed()]:
            with contextlib.suppress(*_store_errors(), RuntimeError):  # "Event loop is closed", for each of them
                await _disconnect(self._async.pop(loop, None))

    def _options(self, *, asynchronous: bool) -> dict[str, Any]:
        """What the client is made with; only Redis takes timeouts in this form."""
        options: dict[str, Any] = {"wrap_exceptions": True}
        if not self._uri.startswith(("redis://", "rediss://", "redis+unix://")):
            return options
        from redis.backoff import NoBackoff

        pools: Any
        if asynchronous:
            from redis import asyncio as pools
            from redis.asyncio.retry import Retry as AsyncRetry

            options["implementation"] = "redispy"
            retry: Any = AsyncRetry(NoBackoff(), 0)
        else:
            import redis as pools
            from redis.retry import Retry

            retry = Retry(NoBackoff(), 0)
        # redis-py's own pool refuses the 101st call at once, as if the store were gone; in this one it waits.
        options["connection_pool"] = pools.BlockingConnectionPool.from_url(
            self._uri.replace("redis+unix://", "unix://"),
            max_connections=MAX_CONNECTIONS,
            timeout=self._timeout,
            retry=retry,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
        )
        return options

    def _figures(self, stats: WindowStats) -> tuple[int, float]:
        # limits answers in wall-clock time; the difference is kept within the window, so that a clock step cannot
        # tell callers to come back next week.
        reset = min(max(0.0, stats.reset_time - time.time()), float(self._item.get_expiry()))
        return max(0, int(stats.remaining)), reset


async def _disconnect(limiter: AsyncRateLimiter | None) -> None:
    bridge = getattr(limiter.storage, "bridge", None) if limiter is not None else None
    if bridge is not None:  # the memory store has none, and nothing to close
        await bridge.storage.connection_pool.disconnect()


def _store_errors() -> tuple[type[Exception], ...]:
    from limits.errors import StorageError

    return (StorageError, OSError, TimeoutError)


def _unavailable(error: Exception) -> StoreUnavailableError:
    cause = getattr(error, "storage_error", None) or error
    return StoreUnavailableError(f"{type(cause).__name__}: {cause}")
