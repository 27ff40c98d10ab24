"""What an attempt's end means: classified once, and told to the breaker, to outlier detection and to the counters."""

from __future__ import annotations

from itertools import count as steps
from typing import TYPE_CHECKING

from meshlib.engine.circuits import settle
from meshlib.engine.commands import Start
from meshlib.engine.error_matcher import as_told
from meshlib.engine.events import EndpointEjected, EndpointReturned
from meshlib.engine.load_bias import lift
from meshlib.engine.stats import count
from meshlib.model.outcome import Outcome
from meshlib.policy.classify import PENDING, Classification, classify
from meshlib.policy.outlier import Change, OutlierDetector
from meshlib.state.cells import EndpointState

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.runtime import Runtime


def judge(call: Attempts, start: Start, outcome: Outcome, *, was_slow: bool = False) -> Classification:
    """Classify once; breaker, outlier detection and counters read that one verdict. `was_slow`: outlier detection has
    heard of this time-out already.
    """
    verdict = classify(outcome)
    call.load.retries.pop(call, None)
    cluster = start.cluster
    if cluster.observe is not None:
        cluster.observe(start, outcome, verdict)
    if verdict is PENDING:  # judged by its status, when the stream has ended; a breaker's permit is kept until then
        return verdict
    permits = start.permits
    if permits:
        period = permits[0][1].period
        # A success after a success tells a breaker nothing that only counts failures in a row.
        nothing_new = verdict.success and period.plain and not period.failures and period.window is None
        if nothing_new and len(permits) == 1 and cluster.circuits is None:
            start.permits = ()
        else:
            settle(start, outcome, verdict)
    detector = cluster.detector
    if detector is not None and not was_slow:
        now, state, cell = outcome.at, cluster.state, start.host.cell
        if now >= cluster.next_sweep:
            sweep(call.runtime, cluster, now)
        # A success that ends no streak of failures, which is what nearly all attempts are, is only counted.
        if verdict.success and cluster.errors is None and cell not in state.streaks:
            if detector.counts:  # `step`, written out because it is run for nearly every attempt
                successes = state.window.successes
                next(successes.get(cell) or successes.setdefault(cell, steps()))
        else:
            detect(call, start, as_told(cluster.errors, outcome, verdict), now)
    count(cluster.stats, outcome)
    return verdict


def detect(call: Attempts, start: Start, verdict: Classification, now: float) -> None:
    """Tell outlier detection; it may eject the attempt's endpoint."""
    cluster, host = start.cluster, start.host
    detector: OutlierDetector | None = cluster.state.detector  # not of a plan that has been replaced meanwhile
    hosts = len(cluster.balancer.hosts)
    if detector is None or not hosts:  # a stand-in, or endpoints that have all left meanwhile: nothing is to be ejected
        return
    ejection = detector.record(cluster.state, host.cell, verdict, now, hosts, call.runtime.rng)
    if ejection is not None:
        cluster.next_sweep = min(cluster.next_sweep, ejection.until)
        _tell(call.runtime, cluster, Change(now, host.cell, ejection))


def sweep(runtime: Runtime, cluster: ClusterPlan, now: float) -> None:
    """What time brings: weights that change, endpoints that stood out in an interval, and that return. Cheap: the next
    time is remembered.
    """
    tick = cluster.balancer.tick(now)
    if cluster.config.load_bias is not None:
        tick = min(tick, lift(cluster.state, now, cluster.config.load_bias))
    if cluster.circuits is not None:
        tick = min(tick, cluster.circuits.sweep(now))
    detector: OutlierDetector | None = cluster.state.detector
    if detector is None:
        cluster.next_sweep = tick
        return
    swept = detector.sweep(cluster.state, now, len(cluster.balancer.hosts), runtime.rng)
    cluster.next_sweep = min(swept.due, tick)
    for change in swept.changes:
        _tell(runtime, cluster, change)


def checked_healthy(runtime: Runtime, cluster: ClusterPlan, cell: EndpointState, now: float) -> None:
    """An active health check of the endpoint has succeeded, which lets it back if outlier detection had ejected it."""
    detector: OutlierDetector | None = cluster.state.detector
    if detector is not None and detector.healthy(cluster.state, cell, now):
        runtime.turn(EndpointReturned(now, cluster.name, cell.address, "a health check succeeded"))


def _tell(runtime: Runtime, cluster: ClusterPlan, change: Change) -> None:
    at, cell, ejection = change
    if ejection is None:
        runtime.turn(EndpointReturned(at, cluster.name, cell.address))
        return
    seconds = ejection.until - at
    runtime.turn(EndpointEjected(at, cluster.name, cell.address, ejection.reason, seconds, ejection.details))
