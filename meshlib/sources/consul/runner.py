"""The one thread of a Consul source: an event loop with every watch on it, and the publication of what they come to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import selectors
import threading
import time
import weakref
from dataclasses import dataclass, field

from meshlib.model.report import Issue, Report, ResourceError
from meshlib.sources.base import Sink
from meshlib.sources.consul.catalog import Catalog
from meshlib.sources.consul.client import ConsulClient, Unanswered
from meshlib.sources.consul.names import named_service
from meshlib.sources.consul.watches import Told, Watches, WatchLimits

_BURST = 0.010  # seconds; a change that comes alone is published at once, the rest of a burst once in this time
_FIRST = 1.0  # seconds the first snapshot waits for all declared services, before it goes without some
_STOP_SECONDS = 1.0
_LONGEST_WORK = 5.0  # seconds a fork waits for an answer to be taken in; more is an owner that hangs
_runners: weakref.WeakSet[Runner] = weakref.WeakSet()
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


@dataclass(slots=True)
class Known:
    """What a forked child goes on from. `asked` are the authorities that calls wanted, in their order."""

    catalog: Catalog
    asked: dict[str, None] = field(default_factory=dict)
    is_published: bool = False


class Runner:
    """The thread of one `start`, its loop, and what happens on it."""

    def __init__(
        self, known: Known, sink: Sink, clients: tuple[ConsulClient, ConsulClient], limits: WatchLimits, domain: str
    ) -> None:
        self._known = known
        self._catalog = known.catalog
        self._domain = domain
        self._sink: Sink | None = sink
        self._clients = clients
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="meshlib-consul", daemon=True)
        _runners.add(self)
        self._watches = Watches(*clients, self._told, limits, random.Random())  # noqa: S311  it spreads load
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._working = threading.RLock()
        self._holds_work = False
        self._last_publish = float("-inf")
        self._began = time.monotonic()

    def start(self) -> None:
        """Begin; returns at once."""
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
        for client in self._clients:
            client.forget()
        self._selector.close()  # this process's copy only
        _inherited.append(self)

    def before_fork(self) -> None:
        """Wait until the thread only waits: a child forked amid its imports could never import the same modules, and
        one forked amid a change would inherit half of it.
        """
        self._holds_work = self._working.acquire(timeout=_LONGEST_WORK)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._holds_work:
            self._working.release()

    def stats(self) -> ConsulStats:
        """As of now, from any thread."""
        counts = self._watches.counts
        failing = list(counts.failing_since.values())
        stale = time.monotonic() - min(failing) if failing else 0.0
        return ConsulStats(
            len(self._watches),
            sum(client.queries for client in self._clients),
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
        self._begin()
        await self._stopping.wait()
        await self._watches.close()
        for client in self._clients:
            client.close()

    def _begin(self) -> None:
        with self._working:
            for authority in list(self._known.asked):
                self._add(authority)
            if self._known.is_published or self._catalog.is_settled:
                self._publish()  # a child goes on from what its parent knew; or there is nothing to wait for
            self._watch()

    def _ask(self, authority: str) -> None:
        with self._working:
            self._add(authority)
            for gone in self._catalog.give_up():
                self._known.asked.pop(gone, None)
            self._watch()
            self._changed()

    def _add(self, authority: str) -> None:
        try:
            self._catalog.ask(authority, named_service(authority, self._domain))
        except ResourceError as error:
            self._report(Issue("error", error.resource, error.path, error.reason))

    def _watch(self) -> None:
        self._watches.want(self._catalog.queries())

    def _told(self, told: Told) -> None:
        """One answer or failure; whatever it is, the watch goes on."""
        try:
            with self._working:
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
        if failure.is_said or not self._known.is_published:
            self._report(Issue("error", "Consul", told.query.subject, failure.reason))
        return False

    def _report(self, *issues: Issue) -> None:
        if self._sink is not None:
            self._sink.report(issues)

    # Publishing ------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Publish at once, or when the burst is over; the first time when all that was declared is known."""
        now = time.monotonic()
        if not self._known.is_published and not self._catalog.is_settled:
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
        with self._working:
            now = time.monotonic()
            if self._catalog.settle(now):
                self._watch()
                self._changed()
                return
            if self._due is not None and now >= self._due:
                self._publish()
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
            self._known.is_published = True
        self._last_publish = time.monotonic()


_inherited: list[Runner] = []  # of the process this one was forked from


def _before_fork() -> None:
    for runner in list(_runners):
        runner.before_fork()


def _after_fork_in_parent() -> None:
    for runner in list(_runners):
        runner.after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_runners.clear)
