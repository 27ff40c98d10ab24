"""A run as pictures; without matplotlib there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import routing
from benchmarks.calls import KINDS, MESH, MESH2, OWN, SHARED

NAMES = ("throughput", "latency", "bodies", "routing")
_MESHES = (MESH, MESH2, OWN, SHARED)
_OURS, _OTHERS = "#00796b", "#b0bec5"


def draw(results: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the plots; the names of those written."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    from matplotlib import pyplot

    for name, paint in zip(NAMES, (_throughput, _latency, _bodies, _routing), strict=True):
        figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
        paint(axes, results["routing" if paint is _routing else "calls"])
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / f"{name}.png", dpi=110)
        pyplot.close(figure)
    return list(NAMES)


def _throughput(axes: Any, calls: Mapping[str, Any]) -> None:
    for name, rates in calls["throughput"].items():
        widths = sorted(rates, key=int)
        ours = name in _MESHES
        axes.plot(widths, [rates[width] for width in widths], marker="o", label=name, linewidth=2.5 if ours else 1.2)
    axes.set(title="Calls a second on one core (log scale)", xlabel="calls in flight", yscale="log")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _latency(axes: Any, calls: Mapping[str, Any]) -> None:
    times = dict(sorted(calls["latency"].items(), key=lambda item: -item[1]["p50"]))
    bars = axes.barh(list(times), [time["p50"] for time in times.values()], color=[_colour(name) for name in times])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set(title="asyncio, one call at a time, p50", xlabel="µs")


def _bodies(axes: Any, calls: Mapping[str, Any]) -> None:
    names = list(calls["bodies"])
    for at, kind in enumerate(KINDS):
        places = [index + (at - 1.5) * 0.21 for index in range(len(names))]
        axes.barh(places, [calls["bodies"][name][kind] for name in names], height=0.2, label=kind)
    axes.set_yticks(range(len(names)), names)
    axes.set(title="Bodies of 1 MB, asyncio", xlabel="MB/s")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _routing(axes: Any, figures: Mapping[str, Any]) -> None:
    for name, costs in figures["match_us"].items():
        sizes = sorted(costs, key=int)
        style = "--" if name not in routing.TOLD_APART else "-"
        axes.plot([int(size) for size in sizes], [costs[size] for size in sizes], style, marker="o", label=name)
    axes.set(title="Finding a route", xlabel="routes (log scale)", ylabel="µs (log scale)", xscale="log", yscale="log")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _colour(name: str) -> str:
    return _OURS if name in _MESHES else _OTHERS
