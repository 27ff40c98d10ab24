"""A rate limit shared by many processes through a store (Redis), by the library `limits`.

Unlike the other policies it acts: it asks the store over the network. So it is asked by a driver (`question`), and it
has a stated answer for the day the store is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from typing import Literal

from meshlib.flags import ResponseFlag
from meshlib.model.cluster import CircuitBreaker
from meshlib.model.filters import TokenBucket
from meshlib.model.limiters import LimitHeaders
from meshlib.model.request import RequestHead
from meshlib.policy.breaker import STATE_CLOSED, STATE_HALF_OPEN, Breaker, Transition
from meshlib.policy.limit_key import KeyFunction, bounded, compile_key
from meshlib.policy.limit_store import STRATEGIES, LimitStore, StoreUnavailableError, Strategy
from meshlib.policy.notation import parse_limit
from meshlib.policy.rate_limit import LocalTokenBucket

OnError = Literal["local", "open", "closed"]
DEFAULT_TIMEOUT = 0.05
"""Seconds the store has to answer before it counts as gone."""
STORE_CIRCUIT = CircuitBreaker(fail_max=3, reset_timeout=1.0)
"""After three failures in a row the store is left alone; once a second one call tries it."""
MAX_LOCAL_KEYS = 10_000
"""Buckets kept while the store is gone; beyond that the oldest is forgotten, so that keys cannot fill the memory."""

log = logging.getLogger("meshlib.shared_limit")


@dataclass(frozen=True, slots=True)
class SharedVerdict:
    """`limit`: hits per window; `remaining`: hits left in it; `reset`: seconds until it starts anew (None: not known).

    `source`: who decided, the store, or the `on_error` policy while the store was gone. `flag` of a refusal is RL, or
    RLSE where it was refused only because the store was gone.
    """

    allowed: bool
    limit: int
    remaining: int | None
    reset: float | None
    source: Literal["store", "local", "open", "closed"]
    flag: ResponseFlag | None = None


@dataclass(frozen=True, slots=True)
class _Process:
    """One process's view of the store, and its buckets for when the store is gone."""

    circuit: Breaker
    local: dict[str, LocalTokenBucket]


class SharedRateLimit:
    """For example `SharedRateLimit("100/minute", "redis://127.0.0.1:6379", key="%REQ(x-user)%")`.

    `limit` is in the notation of `limits`. `strategy`: `fixed` (one counter per window; up to twice the limit across a
    boundary), `sliding` (two weighted counters, approximate), `moving` (exact, memory per hit). Of these `fixed` and
    `sliding` read only the store's clock, `moving` needs the processes' wall clocks to agree.

    `on_error` while the store is gone: `local` limits in this process alone (`local_fraction` of the limit, 1 by
    default; with n processes give 1/n to keep the total), `open` lets everything through, `closed` refuses
    everything. A store that is gone costs `timeout` (50 ms) for three calls, then for one call a second; a synchronous
    call may cost it twice, to connect and to be answered. Each change of state is logged once.

    `headers`: what a server's responses say of the limit, as of a `RequestLimit`. Unless it is none, each hit asks the
    store twice.

    Raises ValueError for a limit, key or option that is not valid, ImportError without the `limits` extra.
    """

    def __init__(
        self,
        limit: str,
        storage: str,
        *,
        key: str | KeyFunction = "",
        name: str = "",
        strategy: Strategy = "fixed",
        on_error: OnError = "local",
        timeout: float = DEFAULT_TIMEOUT,
        local_fraction: float = 1.0,
        headers: LimitHeaders = "none",
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
        if on_error not in ("local", "open", "closed"):
            raise ValueError(f"on_error {on_error!r} is not one of local, open, closed")
        if timeout <= 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        item = parse_limit(limit)
        self.name = name or limit
        self.limit = item.amount
        self.window = float(item.get_expiry())
        self.headers: LimitHeaders = headers
        self._on_error: OnError = on_error
        self._key = compile_key(key)
        self._store = LimitStore(item, storage, strategy, timeout)
        self._last_error = ""
        self._bucket = _local_bucket(self.limit, self.window, local_fraction)
        self._processes: dict[int, _Process] = {}

    def question(self, head: RequestHead) -> SharedQuestion:
        """The hit this request makes, for a driver to ask."""
        return SharedQuestion(self, self._key(head), figures=self.headers != "none")

    def hit(self, key: str = "", *, figures: bool = True) -> SharedVerdict:
        """Count one hit; blocks on the store. Not for use on an event loop.

        Without `figures` the store is asked once, not twice, and `remaining` and `reset` are None.
        """
        now, key, here = time.monotonic(), bounded(key), self._here()
        permit = here.circuit.permit(now)
        if permit is None:
            return self._without_store(here, key, now)
        try:
            answer = self._store.hit(self.name, key, figures=figures)
        except StoreUnavailableError as error:
            self._last_error = str(error)
            here.circuit.record(permit, False, time.monotonic())
            return self._without_store(here, key, now)
        except BaseException:
            here.circuit.release(permit)
            raise
        here.circuit.record(permit, True, time.monotonic())
        return self._by_store(*answer)

    async def ahit(self, key: str = "", *, figures: bool = True) -> SharedVerdict:
        """`hit` without blocking the running event loop."""
        now, key, here = time.monotonic(), bounded(key), self._here()
        permit = here.circuit.permit(now)
        if permit is None:
            return self._without_store(here, key, now)
        try:
            answer = await self._store.ahit(self.name, key, figures=figures)
        except StoreUnavailableError as error:
            self._last_error = str(error)
            here.circuit.record(permit, False, time.monotonic())
            return self._without_store(here, key, now)
        except BaseException:  # a cancelled call says nothing about the store
            here.circuit.release(permit)
            raise
        here.circuit.record(permit, True, time.monotonic())
        return self._by_store(*answer)

    def close(self) -> None:
        """Close the synchronous connections of this process."""
        self._store.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and the synchronous ones."""
        await self._store.aclose()

    def _here(self) -> _Process:
        """What this process has learnt: a forked child inherits neither a probe that its parent is making nor a lock
        that its parent may hold.
        """
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            circuit = Breaker(STORE_CIRCUIT, self.name, [self._changed])
            here = self._processes.setdefault(pid, _Process(circuit, {}))
        return here

    def _by_store(self, admitted: bool, remaining: int | None, reset: float | None) -> SharedVerdict:
        flag = None if admitted else ResponseFlag.RL
        return SharedVerdict(admitted, self.limit, remaining, reset, "store", flag)

    def _without_store(self, here: _Process, key: str, now: float) -> SharedVerdict:
        if self._on_error == "open":
            return SharedVerdict(True, self.limit, None, None, "open")
        if self._on_error == "closed":
            reset = here.circuit.retry_after(now)
            return SharedVerdict(False, self.limit, None, reset, "closed", ResponseFlag.RLSE)
        bucket = self._local_bucket(here.local, key)
        allowed = bucket.take(now)
        flag = None if allowed else ResponseFlag.RL
        remaining, reset = int(bucket.remaining(now)), bucket.next_available(now)
        return SharedVerdict(allowed, self.limit, remaining, reset, "local", flag)

    def _local_bucket(self, buckets: dict[str, LocalTokenBucket], key: str) -> LocalTokenBucket:
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets.setdefault(key, LocalTokenBucket(self._bucket))
            if len(buckets) > MAX_LOCAL_KEYS:
                with contextlib.suppress(RuntimeError, StopIteration):  # another thread was at it
                    buckets.pop(next(iter(buckets)), None)
        return bucket

    def _changed(self, transition: Transition) -> None:
        """One line when the store is lost and one when it is back; tries in between say nothing."""
        if transition.old == STATE_CLOSED:
            message = "shared rate limit %s: the store does not answer (%s); on_error=%s applies until it does"
            log.warning(message, self.name, self._last_error, self._on_error)
        elif transition.old == STATE_HALF_OPEN and transition.new == STATE_CLOSED:
            self._here().local.clear()
            log.warning("shared rate limit %s: the store answers again", self.name)


class SharedQuestion:
    """One hit on one limit, for either kind of driver. Most only want to know whether they may go on: no `figures`."""

    __slots__ = ("_figures", "_key", "_limit")

    def __init__(self, limit: SharedRateLimit, key: str, *, figures: bool = False) -> None:
        self._limit = limit
        self._key = key
        self._figures = figures

    def ask(self) -> SharedVerdict:
        """Hit, blocking."""
        return self._limit.hit(self._key, figures=self._figures)

    async def aask(self) -> SharedVerdict:
        """Hit, on the running event loop."""
        return await self._limit.ahit(self._key, figures=self._figures)


def _local_bucket(limit: int, window: float, fraction: float) -> TokenBucket:
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"local_fraction must be above 0 and at most 1, got {fraction}")
    tokens = max(1, int(limit * fraction))
    return TokenBucket(max_tokens=tokens, tokens_per_fill=tokens, fill_interval=window)
