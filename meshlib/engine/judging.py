"""What an attempt's end means: classified once, and told to the breaker, to outlier detection and to the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.engine.commands import Start
from meshlib.engine.events import EndpointEjected, EndpointReturned
from meshlib.engine.stats import count
from meshlib.model.outcome import Outcome
from meshlib.policy.classify import PENDING, Classification, classify
from meshlib.policy.outlier import OutlierDetector

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts


def judge(call: Attempts, start: Start, outcome: Outcome) -> Classification:
    """Classify once; breaker, outlier detection and counters read that one verdict."""
    verdict = classify(outcome)
    call.load.retries.pop(call, None)
    cluster = start.cluster
    if cluster.observe is not None:
        cluster.observe(start, outcome, verdict)
    if verdict is PENDING:  # judged by its status, when the stream has ended; a breaker's permit is kept until then
        return verdict
    permit, breaker = start.permit, cluster.breaker
    if breaker is not None and permit is not None:
        start.permit = None
        if verdict.neutral:
            breaker.release(permit)
        else:
            breaker.record(permit, not verdict.counts_as_5xx, outcome.at, outcome.error)
    # A success that ends no streak of failures, which is what nearly all attempts are, tells most detectors nothing.
    detector = cluster.detector
    if detector is not None and (
        verdict.counts_as_5xx or detector.wants_successes or start.host.cell in cluster.state.streaks
    ):
        detect(call, detector, start, verdict, outcome.at)
    count(cluster.stats, outcome)
    return verdict


def detect(call: Attempts, detector: OutlierDetector, start: Start, verdict: Classification, now: float) -> None:
    """Tell outlier detection; it may eject the attempt's endpoint."""
    cluster, host = start.cluster, start.host
    hosts = len(cluster.balancer.hosts)
    if not hosts:  # a stand-in, or endpoints that have all left meanwhile: there is nothing to eject
        return
    ejection = detector.record(cluster.state, host.cell, verdict, now, hosts, call.runtime.rng)
    if ejection is None:
        return
    cluster.next_sweep = min(cluster.next_sweep, ejection.until)
    seconds = ejection.until - now
    call.runtime.turn(EndpointEjected(now, cluster.name, host.address, ejection.reason, seconds))


def sweep(call: Attempts, now: float) -> None:
    """What time brings: weights that change, ejected endpoints that return. Cheap: the next time is remembered."""
    cluster = call.cluster
    tick = cluster.balancer.tick(now)
    if cluster.detector is None:
        cluster.next_sweep = tick
        return
    before = list(cluster.state.ejected)
    due = cluster.detector.sweep(cluster.state, now)
    returns = [cell.ejection.until for cell in list(cluster.state.ejected) if cell.ejection is not None]
    cluster.next_sweep = min(due, tick, *returns)
    for cell in before:
        if not cell.ejected:
            call.runtime.turn(EndpointReturned(now, cluster.name, cell.address))
