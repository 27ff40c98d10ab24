"""ConsulSource: a Consul agent as a source of configuration.

One daemon thread with an event loop of its own holds every blocking query; the catalog says what the answers come to; a
snapshot goes to the sink. An agent that is gone, hangs or answers nonsense changes nothing: the last snapshot stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import selectors
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from meshlib.model.report import Issue, Report, ResourceError
from meshlib.sources.base import Sink
from meshlib.sources.consul.catalog import Catalog
from meshlib.sources.consul.client import ConsulClient, Unanswered
from meshlib.sources.consul.names import ServiceName, named_service
from meshlib.sources.consul.query import Consistency
from meshlib.sources.consul.service import CONSUL_OPTIONS, ConsulOptions
from meshlib.sources.consul.settings import ConsulSettings, load_settings
from meshlib.sources.consul.watches import WATCH_LIMITS, Told, Watches, WatchLimits

_BURST = 0.010  # seconds; a change that comes alone is published at once, the rest of a burst once in this time
_FIRST = 1.0  # seconds the first snapshot waits for all declared services, before it goes without some
_STOP_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConsulStats:
    """`stale_seconds`: since when the longest unanswered query has failed; 0 when all is well.

    `queries` counts requests, `answers` those that came back, `went_back` indexes that Consul lost. `not_fresh`: stale
    answers that were too old and asked for again.
    """

    watches: int = 0
    queries: int = 0
    answers: int = 0
    failures: int = 0
    went_back: int = 0
    not_fresh: int = 0
    failing: int = 0
    stale_seconds: float = 0.0


class ConsulSource:
    """Services of a Consul agent, by blocking queries: health, and the discovery chain for routes and splits.

    `settings`: None reads the environment (`load_settings`) at `start`. `declared`: services to watch from the start;
    others are watched when first called, by any of their names (`names`). `domain` is that of Consul's DNS.
    `consistency`: of every read. The agent's `limits.http_max_conns_per_client` (200) is for all processes of a host:
    keep `limits.connections` times processes below it.
    """

    def __init__(
        self,
        settings: ConsulSettings | None = None,
        *,
        declared: Iterable[str] = (),
        options: ConsulOptions = CONSUL_OPTIONS,
        consistency: Consistency = "default",
        limits: WatchLimits = WATCH_LIMITS,
        domain: str = "consul",
    ) -> None:
        self._settings = settings
        self._declared = tuple(named_service(name, domain) or ServiceName(name) for name in declared)
        self._consistency: Consistency = consistency
        self._limits = limits
        self._domain = domain
        self._options = options
        self._catalog = Catalog(options)
        self._asked: dict[str, None] = {}
        self._runner: _Runner | None = None
        self._is_published = False

    def start(self, sink: Sink) -> None:
        """Begin to watch in a daemon thread; returns at once. In a forked child goes on from what the parent knew.
        Raises `ConfigurationError` for settings that cannot be, `ResourceError` for a declared name that cannot.
        """
        settings = self._settings or load_settings()
        for name in self._declared:
            self._catalog.declare(name)
        client = ConsulClient(settings, self._consistency)
        self._runner = _Runner(self, sink, client)
        self._runner.start()

    def request(self, authority: str) -> None:
        """Ask for an authority. From any thread; returns at once."""
        runner = self._runner
        if runner is None or authority in self._asked:
            return
        self._asked[authority] = None
        runner.call_soon(authority)

    def close(self) -> None:
        """Stop watching; nothing is delivered any more. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop()
        self._catalog, self._asked, self._is_published = Catalog(self._options), {}, False

    def forget(self) -> None:
        """In a forked child: the parent's thread and sockets are not ours; what is known stays."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.forget()

    def stats(self) -> ConsulStats:
        """Counters of this process, and how stale its knowledge is."""
        runner = self._runner
        return runner.stats() if runner is not None else ConsulStats()


class _Runner:
    """The thread of one `start`, its loop, and what happens on it."""

    def __init__(self, source: ConsulSource, sink: Sink, client: ConsulClient) -> None:
        self._source = source
        self._catalog = source._catalog
        self._sink: Sink | None = sink
        self._client = client
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="meshlib-consul", daemon=True)
        self._watches = Watches(client, self._told, source._limits, random.Random())  # noqa: S311  it spreads load
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._last_publish = float("-inf")
        self._began = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def call_soon(self, authority: str) -> None:
        """Ask for an authority, on the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the source is, too
            self._loop.call_soon_threadsafe(self._ask, authority)

    def stop(self) -> None:
        """End the thread, within a second or so."""
        self._sink = None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def forget(self) -> None:
        """In a forked child. The loop and its tasks are kept, for ever and untouched: freeing them would run their
        clean-up, and that would take the parent's sockets out of the selector the two processes share.
        """
        self._sink = None
        self._client.forget()
        self._selector.close()  # this process's copy only
        _inherited.append(self)

    def stats(self) -> ConsulStats:
        counts = self._watches.counts
        failing = list(counts.failing_since.values())
        stale = time.monotonic() - min(failing) if failing else 0.0
        return ConsulStats(
            len(self._watches),
            self._client.queries,
            counts.answers,
            counts.failures,
            counts.went_back,
            counts.not_fresh,
            len(failing),
            stale,
        )

    # The loop's thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _main(self) -> None:
        for authority in list(self._source._asked):
            self._add(authority)
        if self._source._is_published or self._catalog.is_settled:
            self._publish()  # a child goes on from what its parent knew; or there is nothing to wait for
        self._watch()
        await self._stopping.wait()
        await self._watches.close()
        self._client.close()

    def _ask(self, authority: str) -> None:
        self._add(authority)
        for gone in self._catalog.give_up():
            self._source._asked.pop(gone, None)
        self._watch()
        self._changed()

    def _add(self, authority: str) -> None:
        try:
            self._catalog.ask(authority, named_service(authority, self._source._domain))
        except ResourceError as error:
            self._report(Issue("error", error.resource, error.path, error.reason))

    def _watch(self) -> None:
        self._watches.want(self._catalog.queries())

    def _told(self, told: Told) -> None:
        """One answer or failure; whatever it is, the watch goes on."""
        try:
            self._take(told)
        except Unanswered:
            raise
        except Exception:  # noqa: BLE001  a bug must not end a watch: the next answer may get round it
            _log.exception("the answer for the %s could not be used; what was known stays in force", told.query.subject)

    def _take(self, told: Told) -> None:
        now, report = time.monotonic(), Report()
        if isinstance(told.came, Unanswered):
            changed = self._failed(told, told.came, now)
        else:
            changed = self._catalog.tell(told.query, told.came.json(), told.index, now, report)
        if report.issues:
            self._report(*report.issues)
        self._watch()
        if changed:
            self._changed()
        else:
            self._schedule(now)

    def _failed(self, told: Told, failure: Unanswered, now: float) -> bool:
        if failure.has_no_chains:
            self._report(
                Issue("degraded", "Consul", told.query.subject, f"{failure.reason}; routes come of health alone")
            )
            return self._catalog.no_chains(told.query, now)
        if failure.is_said or not self._source._is_published:
            self._report(Issue("error", "Consul", told.query.subject, failure.reason))
        return False

    def _report(self, *issues: Issue) -> None:
        if self._sink is not None:
            self._sink.report(issues)

    # Publishing ------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Publish at once, or when the burst is over; the first time when all that was declared is known."""
        now = time.monotonic()
        if not self._source._is_published and not self._catalog.is_settled:
            due = self._began + _FIRST
        else:
            due = self._last_publish + _BURST
        self._due = due
        if now >= due:
            self._publish()
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        """Wake up when something is due: a publication, or the end of a grace period."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moments = [moment for moment in (self._due, self._catalog.deadline) if moment is not None]
        if moments:
            self._timer = self._loop.call_later(max(0.0, min(moments) - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = time.monotonic()
        if self._catalog.settle(now):
            self._watch()
            self._changed()
        elif self._due is not None and now >= self._due:
            self._publish()
            self._schedule(now)
        else:
            self._schedule(now)

    def _publish(self) -> None:
        sink, self._due = self._sink, None
        if sink is None:
            return
        snapshot = self._catalog.snapshot()
        try:
            sink.publish(snapshot)
        except ResourceError as error:
            _log.error("snapshot %s is not used, the last good one stays: %s", snapshot.version, error)
            sink.report((Issue("error", error.resource, error.path, error.reason),))
        else:
            self._source._is_published = True
        self._last_publish = time.monotonic()


_inherited: list[_Runner] = []  # of the process this one was forked from
