"""What load shedding costs a request, and what it saves of a server that is asked for three times what it can do.

    python -m benchmarks.overload [--docs FOLDER] [--check]

The cost is measured: what `shed=` adds to a request through the ASGI middleware, the best of many rounds in turn with
one that sheds nothing; `--check` exits with 1 where it is over the budget. The rest is in model time, and exact.
`--docs` writes the plot into a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.overload_model import CAPACITY, PATIENCE, SHEDDING, Figures, simulate
from benchmarks.servers import BROUGHT, COMMON, asgi_app, receive, scope, send
from meshlib import Mesh
from meshlib.http import server
from meshlib.model.shedding import AdaptiveConcurrency, Bulkhead, Priorities, Shedding

BUDGET = 5.0  # µs a request
COSTS: dict[str, Sequence[Shedding | str]] = {
    "nothing": (),
    "adaptive concurrency": (AdaptiveConcurrency(min_concurrency=10),),
    "admission control": ("admission",),
    "bulkhead": ("bulkhead 100",),
    "bulkhead with a queue": (Bulkhead(100, max_waiting=100),),
    "bulkhead with priorities": (Bulkhead(100, priorities=Priorities()),),
    "queue deadline": ("queue",),
}
SECONDS = 30
NORMAL, STORM = 0.7, 3.0
BEGINS, ENDS = 5, 20


def costs(rounds: int, number: int = 500) -> dict[str, float]:
    """Microseconds that each adds to a request."""
    mesh = Mesh.static({})
    apps = {name: server.MeshMiddleware(asgi_app, mesh=mesh, shed=shed) for name, shed in COSTS.items()}

    async def once(app: Any) -> float:
        scopes = [scope(COMMON | BROUGHT) for _ in range(number)]
        begun = time.perf_counter()
        for each in scopes:
            await app(each, receive, send)
        return (time.perf_counter() - begun) / number * 1e6

    async def all_rounds() -> dict[str, float]:
        best = dict.fromkeys(apps, float("inf"))
        for _ in range(rounds):
            for name, app in apps.items():
                best[name] = min(best[name], await once(app))
        return best

    best = asyncio.run(all_rounds())
    return {name: cost - best["nothing"] for name, cost in best.items() if name != "nothing"}


def storm(at: float) -> float:
    """What is offered: three times the capacity for fifteen seconds."""
    return STORM if BEGINS <= at < ENDS else NORMAL


def storms() -> dict[str, list[float]]:
    """The goodput of each second, by what is shed."""
    return {
        name: simulate(shedding, load=storm, seconds=SECONDS, warm_up=0.0).by_second(SECONDS)
        for name, shedding in SHEDDING.items()
    }


# The plot -----------------------------------------------------------------------------------------------------------

_COLOURS = ("#c62828", "#00796b", "#1565c0", "#6a1b9a", "#9e9e9e", "#ef6c00")
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT = 900, 340, 56, 40, 690


def plot(lines: Mapping[str, Sequence[float]]) -> str:
    """The goodput of each second as an SVG."""

    def x(second: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * second / SECONDS

    def y(part: float) -> float:
        return _HEIGHT - 40 - (_HEIGHT - 40 - _TOP) * min(part, 1.2) / 1.2

    def text(at: tuple[float, float], words: str, anchor: str = "start", size: int = 12) -> str:
        return f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>'

    def box(corner: tuple[float, float], size: tuple[float, float], colour: str) -> str:
        return f'<rect x="{corner[0]:.1f}" y="{corner[1]}" width="{size[0]:.1f}" height="{size[1]}" fill="{colour}"/>'

    title = f"Answers in time, as a part of the capacity; three times the capacity from {BEGINS} to {ENDS} s"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        box((0, 0), (_WIDTH, _HEIGHT), "#ffffff"),
        box((x(BEGINS), _TOP), (x(ENDS) - x(BEGINS), _HEIGHT - 40 - _TOP), "#fff3e0"),
        text((_LEFT, 22), title, size=14),
    ]
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y(part):.1f}" y2="{y(part):.1f}" stroke="#eceff1"/>')
        parts.append(text((_LEFT - 8, y(part) + 4), f"{part:.0%}", "end"))
    parts += [text((x(second), _HEIGHT - 20), f"{second} s", "middle") for second in range(0, SECONDS + 1, 5)]
    for index, (name, values) in enumerate(lines.items()):
        points = " ".join(f"{x(second + 0.5):.1f},{y(part):.1f}" for second, part in enumerate(values))
        colour, row = _COLOURS[index], _TOP + 16 + 20 * index
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [box((_RIGHT + 20, row - 9), (12, 3), colour), text((_RIGHT + 40, row - 3), name)]
    return "\n".join([*parts, "</svg>", ""])


# The tables ---------------------------------------------------------------------------------------------------------


def row(name: str, figures: Figures) -> str:
    """One line of the table."""
    median, slowest = (_seconds(figures.quantile(part)) for part in (0.5, 0.99))
    return f"{name:26}{figures.goodput:>8.1%}{median:>10}{slowest:>10}"


def _seconds(value: float) -> str:
    return "never" if value == float("inf") else f"{value * 1000:.0f} ms"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--docs", type=Path, help="folder for the plot")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a cost is over the budget")
    parser.add_argument("--rounds", type=int, default=60, help="rounds of 500 requests for each cost")
    options = parser.parse_args(given)
    found = costs(options.rounds)
    print(f"{'added to a request':26}{'µs':>8}")
    for name, cost in found.items():
        print(f"{name:26}{cost:>8.2f}")
    print(f"\n3x of {CAPACITY:.0f} requests a second, whose callers wait for {PATIENCE:g} s, in model time")
    print(f"{'shed by':26}{'goodput':>8}{'p50':>10}{'p99':>10}")
    for name, shedding in SHEDDING.items():
        print(row(name, simulate(shedding)))
    if options.docs is not None:
        options.docs.mkdir(parents=True, exist_ok=True)
        (options.docs / "overload.svg").write_text(plot(storms()), encoding="utf-8")
    return 1 if options.check and max(found.values()) > BUDGET else 0


if __name__ == "__main__":
    sys.exit(main())
