"""A run as tables: for the terminal and, in Markdown, for the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import routing
from benchmarks.cores import Cores
from benchmarks.targets import Verdict

Row = Sequence[str]
Table = tuple[str, Row, list[Row]]
_PARTS = ("httpx", "httpx2", "aiohttp", "grpcio", "uvloop")


def machine(cores: Cores) -> str:
    """The machine of a run, in a sentence."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    shared = (
        "client and sidecars share cores" if cores.shared else "client, server and each sidecar on a core of their own"
    )
    return (
        f"{len(names) or '?'} cores of {cpu}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}; {shared}; loopback; "
        f"load average before the run {os.getloadavg()[0]:.1f}"
    )


def libraries() -> str:
    """Versions of what is compared."""
    return ", ".join(f"{name} {found}" for name in _PARTS if (found := _version(name)))


def tables(results: Mapping[str, Any], verdicts: Iterable[Verdict]) -> list[Table]:
    """Everything measured."""
    calls, decisions, scale, parsers = (results[part] for part in ("calls", "decisions", "scale", "parsers"))
    widths = sorted(next(iter(calls["throughput"].values())), key=int)
    return [
        ("Targets", ("what", "wanted", "measured", ""), [_target(verdict) for verdict in verdicts]),
        (
            "asyncio, one call at a time (µs) and calls a second by calls in flight",
            ("client", "p50", "p99", *widths),
            [
                (name, *_quantiles(calls["latency"][name]), *(f"{rates[width]:,.0f}" for width in widths))
                for name, rates in calls["throughput"].items()
            ],
        ),
        _by_kind("Bodies of 1 MB, asyncio (MB/s)", calls["bodies"]),
        (
            "Blocking, one thread (µs) and calls a second of 8 threads",
            ("client", "p50", "p99", "8 threads"),
            [
                (name, *_quantiles(times), f"{calls['threads'][name]:,.0f}")
                for name, times in calls["sync_latency"].items()
            ],
        ),
        _by_kind("Blocking, kinds of calls, p50 (µs)", calls["sync_kinds"]),
        _by_kind("Bodies of 1 MB, blocking (MB/s)", calls["sync_bodies"]),
        (
            "What a call costs the mesh itself, all policies on (µs)",
            ("", "", ""),
            [
                (f"{int(count):,} {what}", f"{cost:.1f}", "")
                for what, costs in (("endpoints", decisions["by_endpoints"]), ("routes", decisions["by_routes"]))
                for count, cost in costs.items()
            ],
        ),
        (
            "From an edit to the first call that goes by it (ms)",
            ("by way of", "p50", "p99"),
            [(way, f"{times['p50']:.1f}", f"{times['p99']:.1f}") for way, times in results["changes"].items()],
        ),
        (
            "Reading one response (µs), by engine",
            ("response", *next(iter(parsers.values()))),
            [(name, *(f"{cost:.1f}" for cost in costs.values())) for name, costs in parsers.items()],
        ),
        *((_updates(results["updates"]),) if "updates" in results else ()),
        *(routing.tables(results["routing"]) if "routing" in results else ()),
        *_grpc(results["grpc"]),
        *_servers(results["servers"]),
        *_telemetry(results["telemetry"]),
        *(_slow_pod(results["slow_pod"]) if "slow_pod" in results else ()),
        (
            "Size",
            ("", "", ""),
            [
                ("10 000 endpoints from code into force", f"{scale['apply_ms']:.0f} ms", ""),
                ("10 000 endpoints from a file into force", f"{scale['load_file_ms']:.0f} ms", ""),
                ("the same again, unchanged", f"{scale['apply_unchanged_ms']:.2f} ms", ""),
                *((f"memory: {name}", f"{size:.0f} MB", "") for name, size in scale["memory_mb"].items()),
            ],
        ),
    ]


def _updates(figures: Mapping[str, Any]) -> Table:
    rows = [
        ("10 000 endpoints in 100 clusters, decoded, into force", f"{figures['apply_ms']:.0f} ms"),
        ("10 000 endpoints in one cluster, decoded, into force", f"{figures['apply_one_cluster_ms']:.0f} ms"),
        ("one endpoint changed, of 100 in one of 100 clusters, from its bytes", f"{figures['change_ms']:.1f} ms"),
        (
            "one endpoint changed, of 10 000 in one cluster, from its bytes",
            f"{figures['change_one_cluster_ms']:.0f} ms",
        ),
        ("memory of an endpoint, decoded and in force", f"{figures['bytes_each']:.0f} bytes"),
        *(
            (f"all 10 000 changed, from the control plane to a call by it: {name}", f"{times['p50']:.0f} ms")
            for name, times in figures["used_ms"].items()
        ),
    ]
    return "Updates", ("", ""), rows


def _grpc(figures: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    for kind, found in figures.items():
        rates = found.get("throughput", {})
        widths = list(next(iter(rates.values()), ()))
        rows = [
            (name, *_quantiles(times), *(f"{rates[name][width]:,.0f}" for width in widths))
            for name, times in found["latency"].items()
        ]
        title = f"gRPC unary, {kind}: one call at a time (µs)"
        head = ("client", "p50", "p99", *(f"{width} in flight, calls/s" for width in widths))
        yield title, head, rows


def _servers(figures: Mapping[str, Mapping[str, float]]) -> Iterable[Table]:
    names = {
        "asgi": "an ASGI middleware adds to a request",
        "wsgi": "a WSGI middleware adds to a request",
        "django": "a Django middleware adds to a request",
        "functions": "decorating a function adds to a call of it",
    }
    for part, costs in figures.items():
        if costs:
            yield f"What {names[part]} (µs)", ("", ""), [(name, f"{cost:.1f}") for name, cost in costs.items()]


def _telemetry(figures: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    if figures["call"]:
        rows = [(way, *(f"{cost:.1f}" for cost in costs.values())) for way, costs in figures["call"].items()]
        yield (
            "What a call costs the mesh itself with spans and metrics, CPU (µs)",
            ("", "its thread", "all threads"),
            rows,
        )
        added = [(name, f"{cost:.1f}") for name, cost in figures["added"].items()]
        yield "What spans add to a call, CPU (µs)", ("", ""), added


def _slow_pod(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterable[Table]:
    for title, found in (("over HTTP", figures["http"]), ("in model time", figures["model"])):
        kinds = list(next(iter(found.values())))
        rows = [(name, *(f"{time:.1f}" for time in times.values())) for name, times in found.items()]
        yield f"The slow-pod test {title}: p99 of ten pods (ms)", ("policy", *kinds), rows


def _by_kind(title: str, figures: Mapping[str, Mapping[str, float]]) -> Table:
    kinds = list(next(iter(figures.values())))
    return (
        title,
        ("client", *kinds),
        [(name, *(f"{found[kind]:,.0f}" for kind in kinds)) for name, found in figures.items()],
    )


def terminal(found: Iterable[Table]) -> str:
    """Aligned columns."""
    return "\n".join(f"\n{title}\n{_aligned(head, rows)}" for title, head, rows in found)


def markdown(found: Iterable[Table], about: Sequence[str], plots: Iterable[str]) -> str:
    """The page `docs/performance.md` includes."""
    parts = ["<!-- made by `python -m benchmarks --docs docs`; do not edit -->", "", *about, ""]
    for title, head, rows in found:
        parts += [f"### {title}", "", _md(head), _md(["---", *["---:"] * (len(head) - 1)]), *map(_md, rows), ""]
    parts += [f"![{name.replace('-', ' ')}](images/benchmarks/{name}.png)" for name in plots]
    return "\n".join(parts) + "\n"


def _target(verdict: Verdict) -> Row:
    measured = "-" if verdict.measured is None else f"{verdict.measured:.3g}{verdict.target.unit}"
    return verdict.target.name, verdict.target.wanted(), measured, verdict.word()


def _quantiles(times: Mapping[str, float]) -> Row:
    return f"{times['p50']:.0f}", f"{times['p99']:.0f}"


def _aligned(head: Row, rows: Sequence[Row]) -> str:
    lines = [row for row in (head, *rows) if any(row)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    )


def _md(row: Row) -> str:
    return f"| {' | '.join(row)} |"


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
