"""Unary gRPC calls: bare grpcio, grpcio's own `xds:///`, and the mesh, of which the last two hear one control plane.

The peers take turns in one process, so that ratios hold. Each peer has the one endpoint there is; the route has a
retry policy and a limit of time, the cluster a limit of requests: what `xds:///` supports of the policies the HTTP
calls carry. The limit of time is `max_stream_duration`, which is a deadline to both; bare calls have none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.changes import control_plane
from benchmarks.grpc_server import METHOD, SERVICE
from benchmarks.topology import write
from benchmarks.worker import run

NAME = "payments"
BARE, XDS, MESH = "grpcio", "grpcio, xds:///", "meshlib"
BODY = b"x" * 100
WIDTHS = (1, 32)
_TYPES = "type.googleapis.com/envoy"

Latencies = dict[str, list[float]]


def resources(port: int) -> list[dict[str, Any]]:
    """What the control plane serves: one listener, cluster and endpoint, as proxyless gRPC asks for them."""
    router = {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"}
    retry = {"retry_on": "unavailable,resource-exhausted", "num_retries": 2}
    limit = {"max_stream_duration": "15s"}
    action = {"cluster": NAME, "retry_policy": retry, "max_stream_duration": limit}
    route = {"match": {"prefix": ""}, "route": action}
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "route_config": {"name": NAME, "virtual_hosts": [{"name": NAME, "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    locality = {"locality": {"zone": "a"}, "load_balancing_weight": 1}
    endpoints = {**locality, "lb_endpoints": [{"endpoint": {"address": address}}]}
    return [
        {
            "@type": f"{_TYPES}.config.listener.v3.Listener",
            "name": NAME,
            "api_listener": {"api_listener": manager},
        },
        {
            "@type": f"{_TYPES}.config.cluster.v3.Cluster",
            "name": NAME,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
            "circuit_breakers": {"thresholds": [{"max_requests": 4096}]},
        },
        {
            "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": NAME,
            "endpoints": [endpoints],
        },
    ]


def bootstrap(target: str) -> str:
    """For `GRPC_XDS_BOOTSTRAP_CONFIG`: both clients read it."""
    server = {"server_uri": target, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
    return json.dumps({"xds_servers": [server], "node": {"id": "benchmark"}})


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write(folder / "mesh.json", resources(options["grpc_port"]))  # type: ignore[arg-type]
        os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = bootstrap(stack.enter_context(control_plane(folder)))
        from meshlib import Mesh

        mesh = stack.enter_context(Mesh.from_xds(declared=[NAME])).wait_ready()
        quick = options["quick"]
        return {
            "sync": _blocking(mesh, options["grpc_port"], quick),
            "aio": asyncio.run(_asynchronous(mesh, options["grpc_port"], quick)),
        }


def _blocking(mesh: Any, port: int, quick: bool) -> dict[str, Any]:
    import grpc

    channels = {
        BARE: grpc.insecure_channel(f"127.0.0.1:{port}"),
        XDS: grpc.insecure_channel(f"xds:///{NAME}"),
        MESH: mesh.grpc.channel(NAME),
    }
    calls = {name: channel.unary_unary(f"/{SERVICE}/{METHOD}") for name, channel in channels.items()}
    latencies: Latencies = {name: [] for name in calls}
    for call in calls.values():
        _times(call, 50)
    for _ in range(6 if quick else 15):
        for name, call in calls.items():
            latencies[name] += _times(call, 60)
    for channel in channels.values():
        channel.close()
    return {"latency": {name: _quantiles(times) for name, times in latencies.items()}}


def _times(call: Callable[[bytes], bytes], count: int) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        call(BODY)
        times.append(time.perf_counter() - begun)
    return times


async def _asynchronous(mesh: Any, port: int, quick: bool) -> dict[str, Any]:
    from grpc import aio

    channels = {
        BARE: aio.insecure_channel(f"127.0.0.1:{port}"),
        XDS: aio.insecure_channel(f"xds:///{NAME}"),
        MESH: mesh.grpc.aio_channel(NAME),
    }
    calls = {name: channel.unary_unary(f"/{SERVICE}/{METHOD}") for name, channel in channels.items()}
    latencies: Latencies = {name: [] for name in calls}
    rates: dict[str, dict[str, list[float]]] = {name: {str(width): [] for width in WIDTHS} for name in calls}
    for call in calls.values():
        await _atimes(call, 50)
    for _ in range(6 if quick else 15):
        for name, call in calls.items():
            latencies[name] += await _atimes(call, 60)
    for _ in range(2 if quick else 3):
        for name, call in calls.items():
            for width in WIDTHS:
                rates[name][str(width)].append(await _rate(call, width, 0.15 if quick else 0.4))
    for channel in channels.values():
        await channel.close()
    return {
        "latency": {name: _quantiles(times) for name, times in latencies.items()},
        "throughput": {
            name: {width: sorted(found)[len(found) // 2] for width, found in by_width.items()}
            for name, by_width in rates.items()
        },
    }


async def _atimes(call: Callable[[bytes], Awaitable[bytes]], count: int) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        await call(BODY)
        times.append(time.perf_counter() - begun)
    return times


async def _rate(call: Callable[[bytes], Awaitable[bytes]], width: int, seconds: float) -> float:
    until = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call(BODY)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(width)))
    return done / (time.perf_counter() - begun)


def _quantiles(samples: list[float]) -> dict[str, float]:
    """Microseconds."""
    ordered = sorted(samples)
    return {"p50": ordered[len(ordered) // 2] * 1e6, "p99": ordered[int(len(ordered) * 0.99)] * 1e6}


if __name__ == "__main__":
    run(measure)
