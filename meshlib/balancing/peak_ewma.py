"""Peak EWMA: power of two choices on latency times requests in flight (Finagle, Linkerd; `contrib` in Envoy).

`cost = latency · (active + 1)`. The latency is a moving average that rises to a peak at once and falls over
`decay_time`, also while nothing is measured: a host that was slow is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.timed import Timed
from meshlib.model.lb import PeakEwma
from meshlib.state.latency import Latency

TICKS = 1000  # of a decay time: how finely time is told


class PeakEwmaBalancer(Timed):
    """The cheaper of two different random hosts."""

    __slots__ = ("_hosts", "_now", "_policy", "_size")

    def __init__(self, hosts: Sequence[Host], policy: PeakEwma) -> None:
        self._hosts = tuple(hosts)
        self._size = len(hosts)
        self._policy = policy
        self._now = 0.0

    def tick(self, now: float) -> float:
        """Let the latencies fall."""
        self._now = now
        return now + self._policy.decay_time / TICKS

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The first drawn of equals."""
        hosts, size = self._hosts, self._size
        first = int(rng.random() * size)
        second = int(rng.random() * (size - 1))
        if second >= first:
            second += 1
        one, other = hosts[first], hosts[second]
        return one if self.cost(one) <= self.cost(other) else other

    def cost(self, host: Host) -> float:
        """Of one more request to a host: in seconds where its latency is known."""
        cell, policy = host.cell, self._policy
        active = len(cell.live)
        known = cell.timing.estimate if cell.timing is not None else None
        if known is None:  # never heard of: tried with one request, and with no other before that is answered
            return policy.penalty + active if active else policy.default_rtt
        seconds, at = known
        age = self._now - at
        return (seconds * exp(-age / policy.decay_time) if age > 0.0 else seconds) * (active + 1)


def peak_ewma(policy: PeakEwma, hosts: Sequence[Host]) -> Balancer:
    """The peak EWMA balancer for these hosts."""
    return PeakEwmaBalancer(hosts, policy)


def observe(policy: PeakEwma, host: Host, seconds: float, now: float, failed: bool) -> None:
    """An attempt has ended. A failed one counts as slow, twice what the host took before, however quickly it failed:
    an endpoint that refuses at once must not look like the best.
    """
    cell = host.cell
    latency = cell.timing
    if latency is None:
        latency = cell.timing = Latency()
    if failed:
        known = latency.estimate
        before = known.seconds if known is not None else policy.default_rtt
        seconds = max(seconds, min(2.0 * before, policy.decay_time))
    latency.observe(seconds, now, policy.decay_time)
