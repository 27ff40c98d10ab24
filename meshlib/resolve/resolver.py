"""Resolver: keeps the names of the clusters in force resolved, off every thread that makes calls."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from meshlib.model.cluster import Cluster
from meshlib.model.dns import Dns
from meshlib.model.endpoint import Address, ClusterLoadAssignment
from meshlib.model.report import Issue
from meshlib.model.snapshot import Snapshot
from meshlib.resolve.expand import expand, names_of
from meshlib.resolve.lookup import Lookup, LookupFailedError, has_dnspython, lookup
from meshlib.resolve.names import Answer, Names, Question

__all__ = ["Resolver"]

AT_ONCE = 16
"""Look-ups at the same time: the system's resolver blocks a thread for as long as it pleases."""
BURST = 0.010
"""Seconds that answers are waited for that come together, so that one change is made of them."""
_log = logging.getLogger("meshlib")


class Resolver:
    """`changed` is called, on the resolver's thread, when any name has other addresses, or has been looked up for the
    first time, in vain or not. `report` hears of what is asked for and cannot be had.
    `servers` are asked for the names of clusters that say nothing of servers. `ask` resolves one name, blocking.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        report: Callable[[tuple[Issue, ...]], None],
        servers: tuple[Address, ...] = (),
        ask: Lookup = lookup,
    ) -> None:
        self._changed = changed
        self._report = report
        self._servers = servers
        self._ask = ask
        self._rng = random.Random()  # noqa: S311  it spreads look-ups, it keeps no secret
        self._names = Names()
        self._expanded: dict[str, tuple[object, ClusterLoadAssignment]] = {}
        self._reset()

    def _reset(self) -> None:
        self._wake = threading.Condition()
        self._first = threading.Event()
        self._thread: threading.Thread | None = None
        self._stop = False
        self._asking = 0
        self._news = False

    # For the mesh --------------------------------------------------------------------------------------------------

    def resolved(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the addresses known now. Clusters of which no name has been looked up yet are left out."""
        if not any(cluster.by_dns for cluster in snapshot.clusters.values()):
            self._expanded = {}
            return snapshot
        with self._wake:
            found = {cluster.name: self._expand(cluster) for cluster in snapshot.clusters.values() if cluster.by_dns}
        self._expanded = {name: entry for name, entry in found.items() if entry is not None}
        return replace(snapshot, resolved={name: assignment for name, (_, assignment) in self._expanded.items()})

    def follow(self, snapshot: Snapshot) -> None:
        """Resolve the names of these clusters from now on, and no others; the snapshot is in force."""
        clusters = snapshot.clusters.values()
        questions = {self._asked(question): None for cluster in clusters for question in names_of(cluster)}
        with self._wake:
            self._names.follow(questions, time.monotonic())
            self._tell_waiting()
            if questions and self._thread is None:
                self._begin()
            self._wake.notify_all()
        self._report_missing(snapshot.clusters)

    def is_awaited(self, cluster: Cluster) -> bool:
        """Whether a cluster has names, and none of them has been looked up yet."""
        with self._wake:
            asked = [self._names.is_awaited(self._asked(question)) for question in names_of(cluster)]
        return bool(asked) and all(asked)

    def wait_first(self, timeout: float) -> bool:
        """Block until every name has been looked up once, in vain or not; False when time is over before."""
        return self._first.wait(max(0.0, timeout))

    def close(self) -> None:
        """Ask no more. Look-ups that are under way end by themselves, and nobody hears of them. Idempotent."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def forget(self) -> None:
        """In a forked child: the threads are the parent's; what is known stays, and everything is asked for anew."""
        self._reset()
        self._names.restart(time.monotonic())

    # Expanding -----------------------------------------------------------------------------------------------------

    def _expand(self, cluster: Cluster) -> tuple[object, ClusterLoadAssignment] | None:
        """The endpoints, the same object as long as nothing about them changes."""
        questions = [self._asked(question) for question in names_of(cluster)]
        # As in Envoy: an answer without addresses empties a STRICT_DNS cluster, and leaves a LOGICAL_DNS one as it was.
        keep = cluster.type == "LOGICAL_DNS"
        known = {question.name: self._names.addresses(question, some=keep) for question in questions}
        if known and all(addresses is None for addresses in known.values()) and all(map(self._is_open, questions)):
            return None
        made_of = (cluster.type, cluster.dns, tuple(known.items()), cluster.load_assignment)
        before = self._expanded.get(cluster.name)
        if before is not None and before[0] == made_of:
            return before
        found = expand(cluster, known.get)
        return made_of, before[1] if before is not None and before[1] == found else found

    def _is_open(self, question: Question) -> bool:
        """Whether nothing is known of it yet, not even that there is nothing."""
        return self._names.is_awaited(question) or not self._names.is_followed(question)

    def _asked(self, question: Question) -> Question:
        """The question with the mesh's own servers, where the cluster names none."""
        if not self._servers or question.dns.resolvers:
            return question
        return Question(question.name, replace(question.dns, resolvers=self._servers))

    def _report_missing(self, clusters: Mapping[str, Cluster]) -> None:
        if not any(cluster.by_dns for cluster in clusters.values()) or has_dnspython():
            return
        for cluster in clusters.values():
            wants = _wanted(cluster.dns) if cluster.by_dns else ""
            if wants:
                why = "dnspython is not installed: the system's resolver is asked, every dns_refresh_rate"
                self._report((Issue("degraded", f"Cluster {cluster.name}", wants, why, "pip install 'meshlib[dns]'"),))

    # The resolver's thread -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="meshlib-dns", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._wake:
                if self._stop or self._thread is not me:
                    return
                now = time.monotonic()
                for question in self._names.take_due(now, AT_ONCE - self._asking):
                    self._asking += 1
                    threading.Thread(
                        target=self._resolve, args=(question,), name="meshlib-dns-ask", daemon=True
                    ).start()
                if not self._news:
                    self._wake.wait(self._pause(now))
                    continue
                if self._asking:
                    self._wake.wait_for(lambda: not self._asking or self._stop, BURST)
                self._news = False
            self._tell()

    def _pause(self, now: float) -> float | None:
        """Until the next name is due; while all threads are busy, until one is not."""
        due = self._names.next_due
        return None if due is None or self._asking >= AT_ONCE else max(0.0, due - now)

    def _tell(self) -> None:
        try:
            self._changed()
        except Exception:  # noqa: BLE001  a bug must not end the resolving: the next answer may get round it
            _log.exception("the addresses of a name could not be put into force; those before stay")
        with self._wake:
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        if self._names.awaited:
            self._first.clear()
        else:
            self._first.set()

    def _resolve(self, question: Question) -> None:
        wake = self._wake
        try:
            answer: Answer | None = self._ask(question.name, question.dns)
            why = ""
        except LookupFailedError as error:
            answer, why = None, str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the name must be asked for again
            answer, why = None, f"{question.name}: {error!r}"
        with wake:
            if wake is not self._wake:
                return
            self._asking -= 1
            now = time.monotonic()
            if answer is not None:
                news = self._names.answered(question, answer, now, self._rng)
            else:
                if self._names.errors().get(question.name) != why:  # once, not at every refresh
                    _log.warning("name not resolved, the addresses known stay: %s", why)
                news = self._names.failed(question, why, now, self._rng)
            self._news = self._news or news
            wake.notify_all()


def _wanted(dns: Dns) -> str:
    """The field that only dnspython can do."""
    if dns.resolvers:
        return "typed_dns_resolver_config"
    return "respect_dns_ttl" if dns.respect_ttl else ""
