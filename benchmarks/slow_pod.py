"""The slow-pod test: ten pods, one of them slower by 200 ms. What the callers of the service notice, by balancer.

    python -m benchmarks.slow_pod [PLOT.png]

Twice: in model time, where only the balancer decides (`benchmarks.slow_pod_model`), and over HTTP to real servers.
The load is the same in both: 16 requests under way, however long they take.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import pods
from benchmarks.slow_pod_model import PODS, POLICIES, SLOWER_BY, Figures, simulate, snapshot
from benchmarks.worker import run
from meshlib import Mesh
from meshlib.model.lb import LbPolicy
from meshlib.sources.static import StaticSource

CALLERS = 16
HEALTHY, SLOW = "all healthy", "one slower by 200 ms"
PART = 0.99
Latencies = dict[str, dict[str, float]]


def model(quick: bool) -> Latencies:
    """The 99th percentile in milliseconds, in model time."""
    requests = 10_000 if quick else 40_000
    return {
        name: {
            kind: simulate(policy, by, requests=requests).quantile(PART) * 1e3
            for kind, by in ((HEALTHY, 0.0), (SLOW, SLOWER_BY))
        }
        for name, policy in POLICIES.items()
    }


def over_http(ports: Sequence[int], quick: bool) -> Latencies:
    """The same over HTTP: the last port is the slow pod's."""
    seconds = 1.0 if quick else 5.0
    kinds = {HEALTHY: ports[:PODS], SLOW: [*ports[: PODS - 1], ports[-1]]}
    return {
        name: {kind: asyncio.run(_load(policy, among, seconds)).quantile(PART) * 1e3 for kind, among in kinds.items()}
        for name, policy in POLICIES.items()
    }


async def _load(policy: LbPolicy, ports: Sequence[int], seconds: float) -> Figures:
    """`CALLERS` at a time; what the first fifth of the time brought is left out, because balancers learn in it."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    latencies: list[float] = []
    async with (
        Mesh(StaticSource(snapshot(policy, addresses)), seed=1) as mesh,
        mesh.http.async_client(base_url="http://pods") as client,
    ):
        began = time.perf_counter()

        async def caller() -> None:
            while (sent := time.perf_counter()) - began < seconds:
                await client.get("/")
                if sent - began > seconds / 5:
                    latencies.append(time.perf_counter() - sent)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return Figures(latencies, ())


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    with pods(options["server_core"]) as ports:
        return {"model": model(options["quick"]), "http": over_http(ports, options["quick"])}


def plot(figures: Mapping[str, Latencies], path: Path) -> None:
    """Two panels: in model time, and over HTTP."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(12, 4.2), layout="constrained", sharey=True)
    for axes, (title, found) in zip(panels, (("in model time", "model"), ("over HTTP", "http")), strict=True):
        names = list(figures[found])[::-1]
        for at, (kind, colour) in enumerate(((SLOW, "#ef6c00"), (HEALTHY, "#00796b"))):
            places = [index + (at - 0.5) * 0.4 for index in range(len(names))]
            bars = axes.barh(places, [figures[found][name][kind] for name in names], 0.38, color=colour, label=kind)
            axes.bar_label(bars, fmt="%.0f", padding=3, fontsize="small")
        axes.set_yticks(range(len(names)), names)
        axes.set(title=f"p99, ten pods, {title}", xlabel="ms", xlim=(0, 250))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    with pods(0) as ports:
        figures = {"model": model(quick=False), "http": over_http(ports, quick=False)}
    for kind, found in figures.items():
        print(f"{kind:8}{'p99, ms':24}{HEALTHY:>14}{SLOW:>24}{'ratio':>8}")
        for name, times in found.items():
            print(f"{'':8}{name:32}{times[HEALTHY]:6.1f}{times[SLOW]:24.1f}{times[SLOW] / times[HEALTHY]:8.2f}")
    if len(sys.argv) > 1:
        plot(figures, Path(sys.argv[1]))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        run(measure)
    else:
        main()
