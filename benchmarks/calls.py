"""Calls through every peer: latency, throughput, bodies. One process, peers taking turns, so that ratios hold.

python -m benchmarks.calls '{"url": ..., "core": ...}'
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.server import MEGABYTE
from benchmarks.worker import run

PATH = "/charge"
BODY = bytes(MEGABYTE)
IN_FLIGHT = (1, 8, 32, 64, 128)
THREADS = 8
MESH, MESH2, BARE, BARE2 = "meshlib (httpx)", "meshlib (httpx2)", "httpx", "httpx2"
RELATIVE, OWN = "meshlib (httpx), by a base URL", "meshlib (httpx), transport in a client of your own"
SHARED = "meshlib (httpx), and a limit shared by Redis"
AIOHTTP, HAND, ONE, TWO = "aiohttp", "httpx, stacked by hand", "httpx, one Envoy", "httpx, two Envoys"

KINDS = ("download", "streamed download", "upload", "streamed upload")

Samples = dict[str, list[float]]


def async_peers(
    options: Mapping[str, Any], folder: Path
) -> dict[str, Callable[[AsyncExitStack], Awaitable[peers.AsyncPeer]]]:
    """Every peer that is there, by name."""
    url: str = options["url"]
    found: dict[str, Callable[[AsyncExitStack], Awaitable[peers.AsyncPeer]]] = {
        BARE: partial(peers.by_library, "httpx", url),
        BARE2: partial(peers.by_library, "httpx2", url),
        MESH: partial(peers.by_mesh, "httpx", folder, url),
        MESH2: partial(peers.by_mesh, "httpx2", folder, url),
        OWN: partial(peers.by_own_client, folder, url),
    }
    if options.get("redis"):
        found[SHARED] = partial(peers.by_mesh, "httpx", folder, url, redis=options["redis"])
    if peers.installed("aiohttp"):
        found[AIOHTTP] = partial(peers.by_aiohttp, url)
    if peers.installed("stamina", "pybreaker", "limits", "opentelemetry.sdk"):
        found[HAND] = partial(peers.by_hand, url)
    for name, key in ((ONE, "one"), (TWO, "two")):
        if options.get(key):
            found[name] = partial(peers.by_library, "httpx", options[key])
    return found


def sync_peers(options: Mapping[str, Any], folder: Path) -> dict[str, Callable[[ExitStack], peers.SyncPeer]]:
    """The blocking ones."""
    url: str = options["url"]
    found: dict[str, Callable[[ExitStack], peers.SyncPeer]] = {
        BARE: partial(peers.sync_by_library, "httpx", url),
        BARE2: partial(peers.sync_by_library, "httpx2", url),
        MESH: partial(peers.sync_by_mesh, "httpx", folder, url),
        MESH2: partial(peers.sync_by_mesh, "httpx2", folder, url),
        RELATIVE: partial(peers.sync_by_base_url, folder, url),
        OWN: partial(peers.sync_by_own_client, folder, url),
    }
    if options.get("redis"):
        found[SHARED] = partial(peers.sync_by_mesh, "httpx", folder, url, redis=options["redis"])
    if peers.installed("stamina", "pybreaker", "limits", "opentelemetry.sdk"):
        found[HAND] = partial(peers.sync_by_hand, url)
    return found


async def asynchronous(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One in flight, many in flight, large bodies."""
    quick = options["quick"]
    async with AsyncExitStack() as stack:
        opened = {name: await open_(stack) for name, open_ in async_peers(options, folder).items()}
        for peer in opened.values():
            await _latencies(peer, 50)
        latency: Samples = {name: [] for name in opened}
        for _ in range(4 if quick else 15):
            for name, peer in opened.items():
                latency[name] += await _latencies(peer, 60 if quick else 150)
        return {
            "latency": {name: _quantiles(samples) for name, samples in latency.items()},
            "throughput": await _throughputs(opened, quick),
            "bodies": await _bodies(opened, quick),
        }


async def _latencies(peer: peers.AsyncPeer, count: int) -> list[float]:
    samples = []
    for _ in range(count):
        begun = time.perf_counter()
        await peer.get(PATH)
        samples.append(time.perf_counter() - begun)
    return samples


async def _throughputs(opened: Mapping[str, peers.AsyncPeer], quick: bool) -> dict[str, dict[str, float]]:
    """Requests a second by peer and requests in flight."""
    rates: dict[str, dict[str, float]] = {name: {} for name in opened}
    for width in (1, 32) if quick else IN_FLIGHT:
        rounds: Samples = {name: [] for name in opened}
        for _ in range(2 if quick else 3):
            for name, peer in opened.items():
                rounds[name].append(await _rate(peer, width, 0.15 if quick else 0.5))
        for name, samples in rounds.items():
            rates[name][str(width)] = statistics.median(samples)
    return rates


async def _rate(peer: peers.AsyncPeer, width: int, seconds: float) -> float:
    """Closed loop: `width` tasks, each with one request in flight at all times."""
    until = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await peer.get(PATH)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(width)))
    return done / (time.perf_counter() - begun)


async def _bodies(opened: Mapping[str, peers.AsyncPeer], quick: bool) -> dict[str, dict[str, float]]:
    """Megabytes a second by peer: 1 MB down with a length, down in chunks and piece by piece, up, up in pieces."""
    samples: dict[str, Samples] = {name: {kind: [] for kind in KINDS} for name in opened}
    for kind in KINDS:
        for _ in range(8 if quick else 60):
            for name, peer in opened.items():
                begun = time.perf_counter()
                await _transfer(peer, kind)
                samples[name][kind].append(time.perf_counter() - begun)
    return _megabytes(samples)


def _transfer(peer: Any, kind: str) -> Any:
    """One transfer, by a peer of either sort."""
    return {
        "download": lambda: peer.get("/1m"),
        "streamed download": lambda: peer.stream("/stream"),
        "upload": lambda: peer.put(PATH, BODY),
        "streamed upload": lambda: peer.feed(PATH, BODY),
    }[kind]()


def _megabytes(samples: Mapping[str, Samples]) -> dict[str, dict[str, float]]:
    return {
        name: {kind: MEGABYTE / 1e6 / statistics.median(times) for kind, times in kinds.items()}
        for name, kinds in samples.items()
    }


def blocking(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One thread, then several that share a client."""
    quick = options["quick"]
    with ExitStack() as stack:
        opened = {name: open_(stack) for name, open_ in sync_peers(options, folder).items()}
        for peer in opened.values():
            _times(peer.get, 50)
        latency: Samples = {name: [] for name in opened}
        threads: Samples = {name: [] for name in opened}
        for _ in range(4 if quick else 15):
            for name, peer in opened.items():
                latency[name] += _times(peer.get, 60 if quick else 150)
        for _ in range(2 if quick else 3):
            for name, peer in opened.items():
                threads[name].append(_thread_rate(peer, 0.2 if quick else 0.7))
        return {
            "sync_latency": {name: _quantiles(samples) for name, samples in latency.items()},
            "threads": {name: statistics.median(rates) for name, rates in threads.items()},
            "sync_kinds": _sync_kinds(opened, quick),
            "sync_bodies": _sync_bodies(opened, quick),
        }


def _sync_kinds(opened: Mapping[str, peers.SyncPeer], quick: bool) -> dict[str, dict[str, float]]:
    """Microseconds of a call by peer and kind."""
    samples: dict[str, Samples] = {name: {kind: [] for kind in peer.kinds} for name, peer in opened.items()}
    for _ in range(2 if quick else 8):
        for name, peer in opened.items():
            for kind, call in peer.kinds.items():
                samples[name][kind] += _times(call, 30 if quick else 60)
    return {
        name: {kind: statistics.median(times) * 1e6 for kind, times in kinds.items()}
        for name, kinds in samples.items()
        if kinds
    }


def _sync_bodies(opened: Mapping[str, peers.SyncPeer], quick: bool) -> dict[str, dict[str, float]]:
    samples: dict[str, Samples] = {name: {kind: [] for kind in KINDS} for name in opened}
    for kind in KINDS:
        for _ in range(8 if quick else 60):
            for name, peer in opened.items():
                begun = time.perf_counter()
                _transfer(peer, kind)
                samples[name][kind].append(time.perf_counter() - begun)
    return _megabytes(samples)


def _times(call: Callable[[str], object], count: int) -> list[float]:
    samples = []
    for _ in range(count):
        begun = time.perf_counter()
        call(PATH)
        samples.append(time.perf_counter() - begun)
    return samples


def _thread_rate(peer: peers.SyncPeer, seconds: float) -> float:
    until = time.perf_counter() + seconds
    counts: list[int] = []

    def caller() -> None:
        count = 0
        while time.perf_counter() < until:
            peer.get(PATH)
            count += 1
        counts.append(count)

    callers = [threading.Thread(target=caller) for _ in range(THREADS)]
    begun = time.perf_counter()
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def _quantiles(samples: list[float]) -> dict[str, float]:
    """Microseconds."""
    ordered = sorted(samples)
    return {"p50": ordered[len(ordered) // 2] * 1e6, "p99": ordered[int(len(ordered) * 0.99)] * 1e6}


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        return {**asyncio.run(asynchronous(options, Path(folder))), **blocking(options, Path(folder))}


if __name__ == "__main__":
    run(measure)
