"""Ten pods, one of them slow, in model time: the mesh's own call flow with every answer's time given.

Arrivals are random and do not wait for answers (an open loop): a service that gets slow is not asked less. A pod works
on any number of requests at once. Nothing here depends on the machine or its load, so the figures are exact.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Flow, Start
from meshlib.engine.runtime import Runtime
from meshlib.model.lb import LbPolicy, LeastRequest, PeakEwma, Random, RoundRobin
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_snapshot

PODS = 10
SLOWER_BY = 0.2
POLICIES: dict[str, LbPolicy] = {
    "round robin": RoundRobin(),
    "random": Random(),
    "least request": LeastRequest(),
    "least request, 3 choices": LeastRequest(choice_count=3),
    "least request, full scan": LeastRequest(full_scan=True),
    "peak EWMA": PeakEwma(),
}
RATE = 4_000.0  # requests a second: 16 are under way at a time
LEAST, MEAN = 0.002, 0.002  # an answer takes this long, and an exponentially distributed time more
WARM_UP = 0.2  # of the requests: balancers that learn have learnt by then

Flowing = tuple[float, int, Flow, Start, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Latencies in seconds, in the order of the requests; the share of them that went to each pod."""

    latencies: Sequence[float]
    shares: Sequence[float]

    def quantile(self, part: float) -> float:
        """0.99 for the 99th percentile."""
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))]


ADDRESSES = [f"10.0.0.{number + 1}:80" for number in range(PODS)]
"""The last one is the slow one."""


def snapshot(policy: LbPolicy, addresses: Sequence[str]) -> Snapshot:
    """One service of these pods. Nothing but the balancer may keep a request from a pod."""
    made = static_snapshot({"pods": addresses})
    cluster = replace(made.clusters["pods"], lb_policy=policy, outlier_detection=None)
    return replace(made, clusters={**made.clusters, "pods": cluster})


def simulate(
    policy: LbPolicy, slower_by: float, *, requests: int = 20_000, seed: int = 1, rate: float = RATE
) -> Figures:
    """The requests' latencies and where they went, the last pod taking `slower_by` seconds more for each."""
    chance = random.Random(seed)
    runtime = Runtime(random.Random(seed + 1), unknown_hosts="reject")
    runtime.install(runtime.compile(snapshot(policy, ADDRESSES), None))
    head = RequestHead("GET", "http", "pods", "/", [(b"Host", b"pods")])
    under_way: list[Flowing] = []
    found: list[tuple[float, str]] = []
    now = 0.0
    for number in range(requests):
        now += chance.expovariate(rate)
        while under_way and under_way[0][0] <= now:
            found.append(_answer(*heappop(under_way)))
        flow = call_flow(runtime, head, now)
        start: Any = next(flow)
        if not isinstance(start, Start):
            raise TypeError(start)
        takes = LEAST + chance.expovariate(1 / MEAN) + (slower_by if start.host.address == ADDRESSES[-1] else 0.0)
        heappush(under_way, (now + takes, number, flow, start, now))
    while under_way:
        found.append(_answer(*heappop(under_way)))
    counted = found[int(requests * WARM_UP) :]
    shares = [sum(address == one for _, address in counted) / len(counted) for one in ADDRESSES]
    return Figures([latency for latency, _ in counted], shares)


def _answer(at: float, _: int, flow: Flow, start: Start, began: float) -> tuple[float, str]:
    outcome = Outcome(200, [])
    outcome.at = at
    flow.send(outcome)
    with contextlib.suppress(StopIteration):
        flow.send(BodyEnd(at))
    return at - began, start.host.address
