"""What a balancer learns from attempts: latencies, and the load that endpoints report. None for balancers that learn
nothing, so that their clusters pay one question an attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balancing.base import Host
from meshlib.balancing.client_side import take_in
from meshlib.balancing.load_aware import take_in_utilization
from meshlib.balancing.peak_ewma import observe
from meshlib.balancing.pick_first import reached
from meshlib.model.lb import ClientSideWeightedRoundRobin, LbPolicy, PeakEwma, PickFirst
from meshlib.model.orca import HEADER, HEADER_BIN, LoadReport
from meshlib.model.outcome import Outcome
from meshlib.model.zones import LoadAware
from meshlib.policy.classify import Classification

if TYPE_CHECKING:
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.commands import Start

Observe: TypeAlias = "Callable[[Start, Outcome, Classification], None]"
TakeReport: TypeAlias = "Callable[[Host, str | bytes | None, str | None, float], None]"
"""(Endpoint, `endpoint-load-metrics-bin`, `endpoint-load-metrics`, now); bytes are the message itself."""


def observer_of(policy: LbPolicy, load_aware: LoadAware | None = None) -> Observe | None:
    """What wants to hear of a cluster's attempts when their responses begin, or fail to."""
    if isinstance(policy, PickFirst):
        return lambda start, outcome, _: reached(start.host, outcome)
    take = report_taker_of(policy, load_aware)
    if isinstance(policy, PeakEwma):
        return lambda start, outcome, verdict: _time(policy, start, outcome, verdict, take)
    return None if take is None else lambda start, outcome, _: _read_report(take, start, outcome)


def report_taker_of(policy: LbPolicy, load_aware: LoadAware | None = None) -> TakeReport | None:
    """What wants the load reports that come with responses."""
    weighs: list[Callable[[Host, LoadReport, float], None]] = []
    if isinstance(policy, ClientSideWeightedRoundRobin) and policy.oob_reporting_period is None:
        weighs.append(partial(take_in, policy))
    if load_aware is not None:
        weighs.append(partial(take_in_utilization, load_aware))
    if not weighs:
        return None
    return lambda host, binary, other, now: _take(weighs, host, binary, other, now)


def wants_out_of_band(clusters: Iterable[ClusterPlan]) -> bool:
    """Whether any cluster's endpoints are to be asked for load reports, beside the calls to them."""
    return any(getattr(cluster.config.lb_policy, "oob_reporting_period", None) is not None for cluster in clusters)


def _time(policy: PeakEwma, start: Start, outcome: Outcome, verdict: Classification, take: TakeReport | None) -> None:
    if take is not None:
        _read_report(take, start, outcome)
    live = start.host.cell.live
    began = live.get(start)
    if began is None or verdict.neutral:  # the end of a body whose beginning was timed, or nobody's fault
        return
    live[start] = None
    observe(policy, start.host, outcome.at - began, outcome.at, verdict.counts_as_5xx)


def _read_report(take: TakeReport, start: Start, outcome: Outcome) -> None:
    if outcome.headers is not None and outcome.grpc_status is None:  # gRPC's are in trailers
        take(start.host, outcome.header(HEADER_BIN), outcome.header(HEADER), outcome.at)


def _take(
    weighs: Iterable[Callable[[Host, LoadReport, float], None]],
    host: Host,
    binary: str | bytes | None,
    other: str | None,
    now: float,
) -> None:
    """A report that cannot be read is none, as in Envoy: it must not fail the response it came with."""
    try:
        report = LoadReport.from_headers(binary, other)
    except ValueError:
        return
    if report is not None:
        for weigh in weighs:
            weigh(host, report, now)
