"""Watches: any number of blocking queries on a bounded number of connections, none of them ever asked too often.

Each query has a task. It asks, tells what came, and asks again from the index it was given (`blocking`). Three bounds
hold whatever Consul does: a token bucket per query, a full-jitter back-off after failures, and a number of connections
in all. Where there are more queries than connections they take turns: each then waits a second at most, and gives its
connection to the next.
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
from meshlib.sources.xds.request_rate import RequestRate

_NOTHING_SAID = Answered(went_back=False, after_failure=False)
_REGROUP = 0.25  # seconds over which the others follow the first query that is answered after an outage
_TURN = 1.0  # seconds a query may wait while others want its connection
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
    connections: int = 64
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
        deliver: Callable[[Told], None],
        limits: WatchLimits,
        rng: Rng,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._limits = limits
        self._rng = rng
        self._clock = clock
        self._slots = asyncio.Semaphore(limits.connections)
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
        limits = self._limits
        async with self._slots:
            wait = limits.wait if len(self._tasks) <= limits.connections else min(limits.wait, _TURN)
            answer = await self._client.ask(query, index, wait)
            if limits.max_staleness is not None and answer.last_contact > limits.max_staleness:
                self.counts.not_fresh += 1
                answer = await self._client.ask(query, 0, wait, is_fresh=True)
            elif index and answer.is_empty:
                # A question that waits is answered by the agent's own view of the catalog (Consul's streaming backend),
                # and that is empty, with status 200, also for a token that may not look. Servers say which it is.
                answer = await self._client.ask(query, 0, wait, is_fresh=True)
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
