"""What was promised, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import grpc_calls, mtls, routing, servers, slow_pod, telemetry, updates
from benchmarks.calls import BARE, BARE2, KINDS, MESH, OWN, RELATIVE, TWO
from benchmarks.changes import DELTA, FILES, SOTW
from benchmarks.consul import FROM_ITS_ANSWER

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of a run and the bound it is to keep. `figure` raises KeyError where a part was not measured."""

    name: str
    bound: float
    at_most: bool
    unit: str
    figure: Callable[[Results], float]

    def wanted(self) -> str:
        """`≤ 0.5x`."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`met` None: not measured, for want of a part."""

    target: Target
    measured: float | None
    met: bool | None

    def word(self) -> str:
        """For the table."""
        return {True: "ok", False: "missed", None: "not measured"}[self.met]


def _p50(results: Results, mine: str, theirs: str, kind: str = "latency") -> float:
    return float(results["calls"][kind][mine]["p50"] / results["calls"][kind][theirs]["p50"])


def _rate(results: Results, theirs: str) -> float:
    rates = results["calls"]["throughput"]
    return float(rates[MESH]["32"] / rates[theirs]["32"])


def _bodies(kind: str, part: str = "bodies") -> Callable[[Results], float]:
    return lambda r: float(r["calls"][part][MESH][kind] / r["calls"][part][BARE][kind])


def _over_tls(results: Results, kind: str) -> float:
    return float(results["mtls"][kind][mtls.MESH] / results["mtls"][kind][mtls.BARE])


def _change(way: str) -> Callable[[Results], float]:
    return lambda r: float(r["changes"][way]["p99"])


def _grpc(kind: str, theirs: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        latency = results["grpc"][kind]["latency"]
        return float(latency[grpc_calls.MESH]["p50"] / latency[theirs]["p50"])

    return ratio


def _update(figure: str) -> Callable[[Results], float]:
    return lambda r: float(r["updates"][figure])


def _used(results: Results) -> float:
    times = results["updates"]["used_ms"]
    return float(times[updates.MESH]["p50"] / times[updates.GRPCIO]["p50"])


def _slow_pod(policy: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        times = results["slow_pod"]["http"][policy]
        return float(times[slow_pod.SLOW] / times[slow_pod.HEALTHY])

    return ratio


def _routes(results: Results) -> float:
    return max(routing.growth(results["routing"]["match_us"]).values())


def _hosts(results: Results) -> float:
    costs = results["routing"]["virtual_host_us"]
    return float(costs["10000"]["asked before"] / costs["10"]["asked before"])


TARGETS = (
    Target("async p50, 1 in flight, to bare httpx", 0.5, True, "x", lambda r: _p50(r, MESH, BARE)),
    Target("async p50, 1 in flight, to httpx by two Envoys", 0.4, True, "x", lambda r: _p50(r, MESH, TWO)),
    Target("throughput, 32 in flight, to bare httpx", 8, False, "x", lambda r: _rate(r, BARE)),
    Target("throughput, 32 in flight, to bare httpx2", 2, False, "x", lambda r: _rate(r, BARE2)),
    Target("sync p50, to bare httpx", 0.7, True, "x", lambda r: _p50(r, MESH, BARE, "sync_latency")),
    Target("sync p50 by a base URL, to bare httpx", 0.7, True, "x", lambda r: _p50(r, RELATIVE, BARE, "sync_latency")),
    # In a client of the caller's own the work above the transport is httpx's, which no transport can spare it.
    Target(
        "sync p50 in a client of your own, to bare httpx", 0.9, True, "x", lambda r: _p50(r, OWN, BARE, "sync_latency")
    ),
    *(Target(f"1 MB {kind}, to bare httpx", 1, False, "x", _bodies(kind)) for kind in KINDS),
    *(Target(f"sync 1 MB {kind}, to bare httpx", 1, False, "x", _bodies(kind, "sync_bodies")) for kind in KINDS),
    Target("mTLS async p50, to bare httpx over TLS", 0.6, True, "x", lambda r: _over_tls(r, "latency")),
    Target("mTLS sync p50, to bare httpx over TLS", 0.6, True, "x", lambda r: _over_tls(r, "sync_latency")),
    Target("gRPC unary sync p50, to bare grpcio", 1.15, True, "x", _grpc("sync", grpc_calls.BARE)),
    Target("gRPC unary sync p50, to xds:///", 1.05, True, "x", _grpc("sync", grpc_calls.XDS)),
    Target("gRPC unary aio p50, to bare grpcio", 1.15, True, "x", _grpc("aio", grpc_calls.BARE)),
    Target("gRPC unary aio p50, to xds:///", 1.05, True, "x", _grpc("aio", grpc_calls.XDS)),
    Target("decision, one endpoint", 15, True, " µs", lambda r: float(r["decisions"]["by_endpoints"]["1"])),
    Target("decision, 10 000 endpoints", 15, True, " µs", lambda r: float(r["decisions"]["by_endpoints"]["10000"])),
    Target("decision, 500 routes", 15, True, " µs", lambda r: float(r["decisions"]["by_routes"]["500"])),
    Target("10 000 endpoints in 100 clusters into force", 150, True, " ms", _update("apply_ms")),
    Target("memory of one endpoint of 10 000", 1024, True, " B", _update("bytes_each")),
    Target("a change of one endpoint of 10 000 into force", 5, True, " ms", _update("change_ms")),
    Target("a change of 10 000 endpoints to its first call, to xds:///", 1.1, True, "x", _used),
    Target(
        "500 routes, to 5, of the dearest kind",
        2,
        True,
        "x",
        _routes,
    ),
    Target("10 000 virtual hosts, to 10", 1.5, True, "x", _hosts),
    Target("a traced call", 40, True, " µs", lambda r: float(r["telemetry"]["call"][telemetry.TRACED]["thread"])),
    Target("ASGI middleware", 20, True, " µs", lambda r: float(r["servers"]["asgi"][servers.OURS])),
    Target("p99 with a slow pod, least request, to all healthy", 1.3, True, "x", _slow_pod("least request")),
    Target("p99 with a slow pod, peak EWMA, to all healthy", 1.3, True, "x", _slow_pod("peak EWMA")),
    Target("change to effect, p99, files", 50, True, " ms", _change(FILES)),
    Target("change to effect, p99, control plane SotW", 50, True, " ms", _change(SOTW)),
    Target("change to effect, p99, control plane delta", 50, True, " ms", _change(DELTA)),
    Target("change to effect, p99, Consul, from its answer", 50, True, " ms", _change(FROM_ITS_ANSWER)),
)


def judge(results: Results) -> list[Verdict]:
    """Every target against a run."""
    return [_verdict(target, results) for target in TARGETS]


def _verdict(target: Target, results: Results) -> Verdict:
    try:
        figure = target.figure(results)
    except KeyError:
        return Verdict(target, None, None)
    return Verdict(target, figure, figure <= target.bound if target.at_most else figure >= target.bound)
