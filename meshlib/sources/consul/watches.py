"""Watches: any number of blocking queries on a bounded number of connections, none of them ever asked too often.

Each query has a task. It asks, tells what came, and asks again from the index it was given (`blocking`). Three bounds
hold whatever Consul does: a token bucket per query, a full-jitter back-off after failures, and a number of connections
in all. A question that waits needs one of these for itself; where there are more queries than connections they take
turns of half a second. A question that does not wait goes over a few connections of their own, so that what a call is
waiting for never queues behind watches; it is also what a query asks that gets no turn for two seconds.

Consul bounds the connections of a host as well (`http_max_conns_per_client`, 200), and counts one that was cut off
until its question would have ended. Where it answers 429 fewer are used from then on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from meshlib.sources.consul.blocking import Answered, BlockingIndex
from meshlib.sources.consul.client import Answer, ConsulClient, Unanswered
from meshlib.sources.consul.query import Query
from meshlib.sources.consul.slots import Slots
from meshlib.sources.xds.request_rate import RequestRate

_NOTHING_SAID = Answered(went_back=False, after_failure=False)
_SHORT = 4  # connections for questions that do not wait
_PATIENCE = 2.0  # seconds a query goes without a turn
_FEWEST = 8  # connections that are never given up
_REGROUP = 0.25  # seconds over which the others follow the first query that is answered after an outage
_TURN = 0.5  # seconds a query may wait while others want its connection
_log = logging.getLogger(__name__)


class Rng(Protocol):
    """What is needed of `random.Random`."""

    def random(self) -> float:
        """A float in [0, 1)."""


@dataclass(frozen=True, slots=True)
class FullJitter:
    """Back-off drawn from [0, min(maximum, base * 2**(failures - 1))), so that clients cut off together spread out."""

    base: float = 0.25
    maximum: float = 5.0

    def delay(self, failures: int, rng: Rng) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        return rng.random() * min(self.maximum, self.base * 2.0 ** min(failures - 1, 32))


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """`wait` is how long Consul may hold a question, `connections` how many are held at once. Each query may be asked
    `burst` times at once and `rate` times a second. `max_staleness`: an answer whose server was out of touch with the
    leader for longer is asked for again, of the leader.
    """

    wait: float = 60.0
    connections: int = 128
    burst: int = 3
    rate: float = 10.0
    max_staleness: float | None = None
    backoff: FullJitter = FullJitter()


WATCH_LIMITS = WatchLimits()


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a question: an answer with what its index says, or the reason why there is none."""

    query: Query
    came: Answer | Unanswered
    index: Answered = _NOTHING_SAID


@dataclass(slots=True)
class WatchCounts:
    """Counters over all watches."""

    answers: int = 0
    failures: int = 0
    went_back: int = 0
    not_fresh: int = 0
    failing_since: dict[Query, float] = field(default_factory=dict)


class Watches:
    """Runs on one event loop. `deliver` is called there with every new answer and every failure."""

    def __init__(
        self,
        client: ConsulClient,
        short_client: ConsulClient,
        deliver: Callable[[Told], None],
        limits: WatchLimits,
        rng: Rng,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._short_client = short_client
        self._deliver = deliver
        self._limits = limits
        self._rng = rng
        self._clock = clock
        self._slots = Slots(limits.connections)
        self._short_slots = Slots(_SHORT)
        self._tasks: dict[Query, asyncio.Task[None]] = {}
        self._recovered = asyncio.Event()  # set, and replaced, when a query that failed is answered
        self.counts = WatchCounts()

    def __len__(self) -> int:
        return len(self._tasks)

    def want(self, queries: Iterable[Query]) -> None:
        """Watch exactly these."""
        wanted = set(queries)
        for query in self._tasks.keys() - wanted:
            self._tasks.pop(query).cancel()
            self.counts.failing_since.pop(query, None)
        for query in wanted - self._tasks.keys():
            self._tasks[query] = asyncio.get_running_loop().create_task(self._watch(query), name=query.subject)

    async def close(self) -> None:
        """End every watch."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, query: Query) -> None:
        index, last, failures = BlockingIndex(), None, 0
        rate = RequestRate(self._limits.burst, self._limits.rate)
        while True:
            if pause := rate.wait(self._clock()):
                await asyncio.sleep(pause)
            rate.spend(self._clock())
            try:
                answer = await self._ask(query, index.ask)
                verdict = index.answered(answer.index)
                self._answered(query, verdict)
                # The same bytes are no news, except where they may mean something else than before.
                if answer.content != last or verdict.went_back or verdict.after_failure:
                    self._deliver(Told(query, answer, verdict))
                last, failures = answer.content, 0
            except Unanswered as failure:
                failures += 1
                index.failed()
                self._failed(query, failure)
                await self._back_off(failures)

    async def _ask(self, query: Query, index: int) -> Answer:
        """Ask, on a connection of the bounded number."""
        if not index or not await self._has_turn():
            return await self._ask_short(query)
        try:
            crowded = len(self._tasks) > self._slots.capacity
            wait = min(self._limits.wait, _TURN) if crowded else self._limits.wait
            answer = await self._client.ask(query, index, wait)
        except Unanswered as failure:
            if failure.is_crowded:
                self._use_fewer()
            raise
        finally:
            self._slots.release()
        return await self._confirmed(query, answer)

    def _use_fewer(self) -> None:
        """Consul has no more connections for this host: leave a quarter of ours to the others on it."""
        fewer = min(self._slots.capacity, self._client.open_connections) * 3 // 4
        self._slots.resize(max(fewer, min(_FEWEST, self._limits.connections)))
        self._client.most_connections = self._slots.capacity

    async def _ask_short(self, query: Query, *, is_fresh: bool = False) -> Answer:
        """Ask for what there is now, without waiting for news."""
        await self._short_slots.acquire()
        try:
            answer = await self._short_client.ask(query, 0, 0.0, is_fresh=is_fresh)
        finally:
            self._short_slots.release()
        return answer if is_fresh else await self._confirmed(query, answer, is_short=True)

    async def _has_turn(self) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._slots.acquire()
        except TimeoutError:
            return False
        return True

    async def _confirmed(self, query: Query, answer: Answer, *, is_short: bool = False) -> Answer:
        """The answer, or the leader's own where this one may be too old, or empty for a reason of its own."""
        limit = self._limits.max_staleness
        if limit is not None and answer.last_contact > limit:
            self.counts.not_fresh += 1
            return await self._ask_short(query, is_fresh=True)
        if answer.is_empty and not is_short:
            # A question that waits is answered by the agent's own view of the catalog (Consul's streaming backend), and
            # that is empty, with status 200, also for a token that may not look. Servers say which it is.
            return await self._ask_short(query, is_fresh=True)
        return answer

    async def _back_off(self, failures: int) -> None:
        """Wait, but not to the end when another query is answered again: Consul is back for this one as well."""
        recovered = self._recovered
        try:
            async with asyncio.timeout(self._limits.backoff.delay(failures, self._rng)):
                await recovered.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._rng.random() * _REGROUP)

    def _answered(self, query: Query, verdict: Answered) -> None:
        self.counts.answers += 1
        self.counts.went_back += verdict.went_back
        failing = self.counts.failing_since
        if failing.pop(query, None) is None:
            return
        self._recovered.set()
        self._recovered = asyncio.Event()
        if not failing:
            _log.info("Consul answers again")

    def _failed(self, query: Query, failure: Unanswered) -> None:
        self.counts.failures += 1
        if not self.counts.failing_since:  # a line for the first query of an outage; all the others would say the same
            _log.warning("Consul does not answer for the %s: %s", query.subject, failure.reason)
        self.counts.failing_since.setdefault(query, self._clock())
        self._deliver(Told(query, failure))
