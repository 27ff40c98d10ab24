"""Runtime: what every call flow of one mesh shares: the plan in force, the random numbers, who listens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from meshlib.engine.circuits import given_circuits
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.commands import Question
from meshlib.engine.events import EndpointReturned, Event, Observer
from meshlib.engine.faults import Faults
from meshlib.engine.filter_states import FilterStates
from meshlib.engine.healing import HealingRecord
from meshlib.engine.plan import Attached, Plan
from meshlib.engine.rng import Randomness
from meshlib.model.snapshot import Snapshot
from meshlib.state.cells import EndpointState, MeshState
from meshlib.telemetry.propagators import DEFAULT, Propagation
from meshlib.telemetry.tracing import Tracing

UnknownHosts = Literal["pass_through", "reject"]
log = logging.getLogger("meshlib")


def _epoch() -> float:
    """For whoever has no clock: then every moment that a response names is still to come."""
    return 0.0


class Runtime:
    """`plan` is the one attribute a call reads its configuration from, and `install` the one store that changes it.

    `fetch_timeout` bounds how long a call waits for configuration that has not arrived yet (Envoy and gRPC: 15 s).
    `propagation`: which trace headers are understood and written, and what baggage passes.
    `tracing` makes spans; None (the default) makes none, and costs one question a call.
    `trust_envoy_headers`: whether a request may ask for timeouts, retries and hedging in `x-envoy-*` headers.
    `wall_clock` is Unix time, for responses that say when to come back.
    `first_lookup` makes the question whether a cluster's names have been looked up once, for calls that wait for it.
    `faults` is what filters inject, and the switch for it.
    `healing` is the record of what was isolated, and when it was back. `circuits` are the breakers of routes from code.
    `background` runs work that is too long for a call (a large cluster's balancer) elsewhere; without it, at once.
    """

    __slots__ = (
        "attached",
        "background",
        "circuits",
        "faults",
        "fetch_timeout",
        "filters",
        "first_lookup",
        "healing",
        "observers",
        "plan",
        "propagation",
        "rng",
        "state",
        "tracing",
        "trust_envoy_headers",
        "unknown_hosts",
        "wall_clock",
    )

    def __init__(
        self,
        rng: Randomness,
        *,
        attached: Attached | None = None,
        unknown_hosts: UnknownHosts = "pass_through",
        fetch_timeout: float = 15.0,
        background: Callable[[Callable[[], None]], None] | None = None,
        propagation: Propagation = DEFAULT,
        trust_envoy_headers: bool = True,
        wall_clock: Callable[[], float] = _epoch,
        faults: Faults | None = None,
    ) -> None:
        self.rng = rng
        self.attached = attached or Attached()
        self.unknown_hosts = unknown_hosts
        self.fetch_timeout = fetch_timeout
        self.background = background or _now
        self.observers: tuple[Observer, ...] = ()
        self.propagation = propagation
        self.trust_envoy_headers = trust_envoy_headers
        self.wall_clock = wall_clock
        self.tracing: Tracing | None = None
        self.first_lookup: Callable[[str, float], Question] | None = None
        self.state = MeshState()
        self.faults = faults or Faults()
        self.faults.begin(self.emit)
        self.filters = FilterStates(self.faults)
        self.healing = HealingRecord()
        self.filters.attached = self.attached.filters
        self.circuits = tuple(given_circuits(self.attached.breakers, self.filters))
        self.plan = self.compile(Snapshot(on_demand=True), None)

    def compile(self, snapshot: Snapshot, previous: Plan | None) -> Plan:
        """A plan for a snapshot, taking over what has not changed. Raises `ResourceError`; nothing is in force yet."""
        return Plan(snapshot, self.state, self.filters, self.attached, previous)

    def install(self, plan: Plan, now: float | None = None) -> None:
        """Put a plan into force: one store. Then the state follows: that of clusters the plan does not have is
        forgotten, else names that come and go would pile up; calls still in flight hold their own.
        """
        before, self.plan = self.plan.clusters, plan
        self.faults.follow(plan.snapshot.runtime)
        self.state.keep_only(plan.clusters)
        self.healing.keep_only(lambda name, at: name in plan.clusters and at in plan.clusters[name].addresses)
        for name, cluster in plan.clusters.items():
            if before.get(name) is not cluster:  # what was taken over has been adopted, endpoint by endpoint, already
                self._let_back(cluster, cluster.adopt(now), now)

    def _let_back(self, cluster: ClusterPlan, cells: Sequence[EndpointState], now: float | None) -> None:
        if now is not None:
            for cell in cells:
                self.turn(EndpointReturned(now, cluster.name, cell.address, "outlier detection was taken away"))

    def turn(self, event: Event) -> None:
        """Something was isolated, is tried again, or is back: rare, so it is always recorded, logged and told."""
        change = self.healing.take(event)
        self.emit(lambda: event)
        if change is None:
            return
        what = f"endpoint {change.endpoint} of {change.cluster}" if change.endpoint else change.cluster
        log.info("%s: %s -> %s by %s (%s)", what, change.old, change.new, change.by, change.reason)
        if self.tracing is not None:
            self.tracing.happened(change)
        self.emit(lambda: change)

    def emit(self, make: Callable[[], Event]) -> None:
        """Tell the observers. The event is made only if there are any; one that raises is dropped, not the call."""
        if not self.observers:
            return
        event = make()
        for observer in self.observers:
            try:
                observer(event)
            except Exception:
                log.exception("observer %r raised and is dropped", observer)
                self.observers = tuple(other for other in self.observers if other is not observer)


def _now(work: Callable[[], None]) -> None:
    work()
