"""Balancing alone: the cost of a pick, of building and updating a balancer, and its memory, by policy and hosts.

    python -m benchmarks.balancing [PLOT.png]

A pick should cost the same at any number of hosts, or grow with its logarithm. The plot is written when matplotlib is
installed and a file is named.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshlib.balancing.cluster import ClusterBalancer
from meshlib.balancing.peak_ewma import observe
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.lb import (
    ClientSideWeightedRoundRobin,
    LbPolicy,
    LeastRequest,
    Maglev,
    PeakEwma,
    Random,
    RingHash,
    RoundRobin,
    SlowStart,
)
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.state.cells import ClusterState, Ejection, ReportedLoad

SIZES = (10, 1_000, 10_000)
PICKS = 20_000
NOW = 1_000.0
ROUNDS = 5  # the median counts


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    policy: LbPolicy
    weight: Callable[[int], int]
    prepare: Callable[[ClusterBalancer], object] = lambda _: None
    """What the balancer has learnt before it picks."""


def warm(balancer: ClusterBalancer) -> None:
    """A tenth of the hosts joined half a minute ago, the others long before."""
    for number, host in enumerate(balancer.hosts):
        host.cell.seen_healthy = NOW - (30.0 if number % 10 == 0 else 600.0)


def busy(balancer: ClusterBalancer) -> None:
    """No host is idle, and few are least loaded."""
    for number, host in enumerate(balancer.hosts):
        host.cell.live.update(dict.fromkeys(range(1 + number % 50)))


def reported(balancer: ClusterBalancer) -> None:
    """Every host has said how much it would serve when full."""
    for number, host in enumerate(balancer.hosts):
        host.cell.reported = ReportedLoad(100.0 + number % 13, NOW - 60.0, NOW)


def timed(balancer: ClusterBalancer) -> None:
    """Every host has answered."""
    for number, host in enumerate(balancer.hosts):
        observe(PeakEwma(), host, 0.01 + 0.001 * (number % 13), NOW, failed=False)


def equal(_: int) -> int:
    return 1


def unequal(number: int) -> int:
    return 1 + number % 7


MINUTE = SlowStart(60.0)
CASES = (
    Case("round robin", RoundRobin(), equal),
    Case("round robin, weighted", RoundRobin(), unequal),
    Case("round robin, slow start", RoundRobin(MINUTE), equal, warm),
    Case("least request", LeastRequest(), equal),
    Case("least request, weighted", LeastRequest(), unequal),
    Case("least request, slow start", LeastRequest(slow_start=MINUTE), equal, warm),
    Case("least request, full scan", LeastRequest(full_scan=True), equal),
    Case("least request, full scan, all busy", LeastRequest(full_scan=True), equal, busy),
    Case("client-side weighted", ClientSideWeightedRoundRobin(), equal, reported),
    Case("peak EWMA", PeakEwma(), equal, timed),
    Case("random", Random(), equal),
    Case("ring hash", RingHash(), equal),
    Case("ring hash, weighted", RingHash(), unequal),
    Case("ring hash, 100 000 entries", RingHash(minimum_ring_size=100_000), equal),
    Case("ring hash, bounded loads", RingHash(hash_balance_factor=125), equal),
    Case("Maglev", Maglev(), equal),
    Case("Maglev, weighted", Maglev(), unequal),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one case at one size."""

    hosts: int
    pick_us: float
    build_ms: float
    update_ms: float
    refresh_ms: float
    bytes_per_host: float


def assignment(count: int, weight: Callable[[int], int]) -> ClusterLoadAssignment:
    endpoints = tuple(
        LbEndpoint(Address(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 8080), weight(n)) for n in range(count)
    )
    return ClusterLoadAssignment("bench", (LocalityLbEndpoints(endpoints),))


def measure(case: Case, count: int) -> Figures:
    cluster = Cluster("bench", lb_policy=case.policy)
    endpoints, state = assignment(count, case.weight), ClusterState("bench")
    for address in {str(endpoint.address) for group in endpoints.localities for endpoint in group.endpoints}:
        state.endpoint(address)  # the cells belong to the state, not to balancing
    memory = _memory(lambda: ClusterBalancer(cluster, endpoints, state))
    build = _milliseconds(lambda: ClusterBalancer(cluster, endpoints, state))
    balancer = ClusterBalancer(cluster, endpoints, state)
    again = assignment(count, case.weight)
    update = _milliseconds(lambda: ClusterBalancer(cluster, again, state, balancer))
    state.endpoint(balancer.hosts[0].address).ejection = Ejection(0.0, 1.0, "bench")
    view = ClusterBalancer(cluster, endpoints, state)
    refresh = _milliseconds(lambda: _flip(view, state))
    case.prepare(balancer)
    balancer.begin(NOW)
    return Figures(
        count,
        _pick(balancer, PICKS if case.prepare is not busy else PICKS // 20),
        build,
        update,
        refresh,
        memory / count,
    )


def _flip(balancer: ClusterBalancer, state: ClusterState) -> None:
    """One host is ejected or returns, and the view is compiled again."""
    cell = state.endpoint(balancer.hosts[0].address)
    cell.ejection = None if cell.ejection else Ejection(0.0, 1.0, "bench")
    state.availability_changed()
    balancer.refresh()


def _pick(balancer: ClusterBalancer, picks: int) -> float:
    """Microseconds a pick, less the empty loop."""
    rng = random.Random(1)
    hashes = [rng.getrandbits(64) for _ in range(picks)]
    pick, figures = balancer.pick, []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _value in hashes:
            pass
        empty = time.perf_counter() - start
        start = time.perf_counter()
        for value in hashes:
            pick(value, EMPTY_STRUCT, rng)
        figures.append(time.perf_counter() - start - empty)
    return statistics.median(figures) / picks * 1e6


def _milliseconds(act: Callable[[], object]) -> float:
    figures = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        act()
        figures.append(time.perf_counter() - start)
    return statistics.median(figures) * 1e3


def _memory(build: Callable[[], object]) -> int:
    """Bytes that stay allocated for what `build` makes."""
    gc.collect()
    tracemalloc.start()
    kept = build()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


def plot(results: dict[str, list[Figures]], path: Path) -> None:
    from matplotlib import pyplot

    figure, (picks, builds) = pyplot.subplots(1, 2, figsize=(12, 5))
    colours = pyplot.get_cmap("tab20").colors
    for (name, figures), colour in zip(results.items(), colours, strict=False):
        sizes = [figure.hosts for figure in figures]
        look: dict[str, Any] = {"marker": "o", "label": name, "color": colour}
        picks.plot(sizes, [figure.pick_us for figure in figures], **look)
        builds.plot(sizes, [figure.build_ms for figure in figures], **look)
    for axes, unit in ((picks, "µs a pick"), (builds, "ms to build")):
        axes.set(xscale="log", xlabel="hosts", ylabel=unit)
        axes.grid(visible=True, alpha=0.3)
    picks.set_yscale("log")
    builds.set_yscale("log")
    builds.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    results: dict[str, list[Figures]] = {}
    print(f"{'policy':36}{'hosts':>7}{'pick µs':>9}{'build ms':>10}{'update ms':>11}{'eject ms':>10}{'B/host':>8}")
    for case in CASES:
        results[case.name] = [measure(case, size) for size in SIZES]
        for row in results[case.name]:
            figures = f"{row.pick_us:9.2f}{row.build_ms:10.2f}{row.update_ms:11.2f}{row.refresh_ms:10.2f}"
            print(f"{case.name:36}{row.hosts:7}{figures}{row.bytes_per_host:8.0f}")
    if len(sys.argv) > 1:
        plot(results, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
