"""Client-side weighted round robin: weights from what endpoints report of their load (gRFC A58, A114; Envoy).

A weight is `qps / (utilization + eps / qps · penalty)`: what the endpoint would serve when full. It counts once reports
have come for `blackout_period`, until none has come for `weight_expiration_period`. An endpoint without one has the
median weight, as in Envoy (gRPC: the mean); without two weights, all are equal (A58).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from meshlib.balancing.base import Balancer, Host
from meshlib.balancing.round_robin import by_weights
from meshlib.balancing.slow_start import warming
from meshlib.balancing.timed import Reweighed
from meshlib.model.lb import ClientSideWeightedRoundRobin
from meshlib.model.orca import LoadReport
from meshlib.state.cells import ReportedLoad

SHORTEST_UPDATE = 0.1  # of `weight_update_period` (A58)
LEAST_WEIGHT, LARGEST_WEIGHT = 1e-6, float(2**32 - 1)  # Envoy's weights are 32 bits


def utilization(report: LoadReport, names: Sequence[str]) -> float:
    """The application's own, else the largest of the named metrics, else the processor's (A58, A114)."""
    if report.application_utilization > 0.0:
        return report.application_utilization
    named = max((report.metric(name) for name in names), default=0.0)
    return named if named > 0.0 else report.cpu_utilization


def weight_of(report: LoadReport, policy: ClientSideWeightedRoundRobin) -> float | None:
    """The weight a report gives, None where it says too little."""
    qps = report.rps_fractional
    if qps <= 0.0:
        return None
    used = utilization(report, policy.metric_names_for_computing_utilization)
    if report.eps > 0.0:
        used += report.eps / qps * policy.error_utilization_penalty
    return min(max(qps / used, LEAST_WEIGHT), LARGEST_WEIGHT) if used > 0.0 else None


def take_in(policy: ClientSideWeightedRoundRobin, host: Host, report: LoadReport, now: float) -> None:
    """Keep what a report makes of the endpoint. After a gap as long as the expiry its blackout begins anew."""
    weight = weight_of(report, policy)
    if weight is None:
        return
    known = host.cell.reported
    fresh = known is None or now - known.at >= policy.weight_expiration_period
    since = now if known is None or fresh else known.since
    host.cell.reported = ReportedLoad(weight, since, now)


def client_side_weighted_round_robin(policy: ClientSideWeightedRoundRobin, hosts: Sequence[Host]) -> Balancer:
    """The balancer for these hosts, weighed every `weight_update_period`."""
    period = max(SHORTEST_UPDATE, policy.weight_update_period)

    def weigh(among: Sequence[Host], now: float) -> tuple[Sequence[float], float]:
        found = [_valid(policy, host.cell.reported, now) for host in among]
        known = [weight for weight in found if weight is not None]
        if len(known) < 2:
            return [1] * len(found), now + period
        usual = median(known)
        return [usual if weight is None else weight for weight in found], now + period

    scaled = weigh if policy.slow_start is None else warming(policy.slow_start, weigh)
    return Reweighed(hosts, scaled, by_weights, [1] * len(hosts))


def _valid(policy: ClientSideWeightedRoundRobin, load: ReportedLoad | None, now: float) -> float | None:
    if load is None or now - load.at >= policy.weight_expiration_period:
        return None
    return None if now - load.since < policy.blackout_period else load.weight
