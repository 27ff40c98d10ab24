"""Updates: 10 000 endpoints in 100 clusters into force and in memory, a change of one of them, and the time until calls
go by a change, against grpcio's `xds:///` on the same control plane.

    python -m benchmarks.updates

From decoded resources: what is timed is compiling a plan and putting it into force, on the thread of the source. The
memory is that of the decoded resources and of all that is made of them. A change of one endpoint is timed from the
bytes of its cluster's assignment.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.grpc_calls import METHOD, NAME, SERVICE, bootstrap
from benchmarks.worker import run

CLUSTERS, EACH = 100, 100
ROUNDS = 7
GRPCIO, MESH = "grpcio, xds:///", "meshlib"


def assignment(name: str, count: int, first_weight: int = 1) -> Any:
    """The message of a cluster's endpoints; `first_weight` is what an update changes."""
    from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

    message = ClusterLoadAssignment(cluster_name=name)
    group = message.endpoints.add()
    group.locality.zone = "a"
    cluster = int(name.removeprefix("c"))
    for number in range(count):
        endpoint = group.lb_endpoints.add()
        address = endpoint.endpoint.address.socket_address
        address.address, address.port_value = f"10.{cluster}.{number >> 8}.{number & 255}", 8080
        endpoint.load_balancing_weight.value = first_weight if number == 0 else 1
    return message


def decoded(message: Any) -> Any:
    """The model's assignment."""
    from meshlib.sources.xds.decode import decode_message

    return decode_message(message).resource


def snapshot(counts: Mapping[str, int]) -> Any:
    """Clusters of so many endpoints."""
    from meshlib.model.cluster import Cluster
    from meshlib.model.snapshot import Snapshot

    clusters = {name: Cluster(name, type="EDS") for name in counts}
    return Snapshot(clusters=clusters, endpoints={name: decoded(assignment(name, counts[name])) for name in counts})


def runtime() -> Any:
    from meshlib.engine.runtime import Runtime

    return Runtime(random.Random(1))


def apply(target: Any, wanted: Any) -> None:
    """What a source's thread does with a snapshot."""
    target.install(target.compile(wanted, target.plan), time.monotonic())


def first(wanted: Any) -> float:
    """Milliseconds to put all of it into force."""
    times = []
    for _ in range(ROUNDS):
        target = runtime()
        gc.collect()
        begun = time.perf_counter()
        apply(target, wanted)
        times.append(time.perf_counter() - begun)
    return sorted(times)[ROUNDS // 2] * 1e3


def change(wanted: Any, name: str, count: int) -> float:
    """Milliseconds from the bytes of an assignment with one endpoint changed to the plan in force."""
    from dataclasses import replace

    from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

    target, times = runtime(), []
    apply(target, wanted)
    for number in range(ROUNDS):
        data = assignment(name, count, 2 + number).SerializeToString()
        begun = time.perf_counter()
        changed = decoded(ClusterLoadAssignment.FromString(data))
        wanted = replace(wanted, endpoints={**wanted.endpoints, name: changed})
        apply(target, wanted)
        times.append(time.perf_counter() - begun)
    return sorted(times)[ROUNDS // 2] * 1e3


def bytes_each(counts: Mapping[str, int]) -> float:
    """Of memory that one endpoint takes, decoded and in force."""
    apply(runtime(), snapshot({"c1": 1}))  # what is imported is not counted
    gc.collect()
    tracemalloc.start()
    target, wanted = runtime(), snapshot(counts)
    apply(target, wanted)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / sum(counts.values())


@contextmanager
def control_plane(core: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Its address, and what turns its endpoints to the other server."""
    command = [sys.executable, "-m", "benchmarks.update_server", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  pipes were asked for
        commands = process.stdin

        def turn() -> None:
            commands.write("\n")
            commands.flush()

        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError("the control plane did not start")
            yield address, turn
        finally:
            process.terminate()


def followed(call: Callable[[bytes], bytes], turn: Callable[[], None], count: int) -> list[float]:
    """Seconds from a change of all 10 000 endpoints to the first answer by it."""
    times, now = [], call(b"")
    for _ in range(count):
        begun = time.perf_counter()
        turn()
        while call(b"") == now:
            if time.perf_counter() - begun > 60:
                raise TimeoutError("the change did not come")
            time.sleep(0.002)
        times.append(time.perf_counter() - begun)
        now = call(b"")
        time.sleep(0.1)
    return times


def against_grpcio(core: int, quick: bool) -> dict[str, Any]:
    """Milliseconds for each client, one after the other, each with a control plane of its own."""
    import grpc

    results = {}
    for name in (GRPCIO, MESH):
        with ExitStack() as stack:
            address, turn = stack.enter_context(control_plane(core))
            os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = bootstrap(address)
            if name == MESH:
                from meshlib import Mesh

                mesh = stack.enter_context(Mesh.from_xds(declared=[NAME])).wait_ready()
                channel = stack.enter_context(mesh.grpc.channel(NAME))
            else:
                channel = stack.enter_context(grpc.insecure_channel(f"xds:///{NAME}"))
            call = channel.unary_unary(f"/{SERVICE}/{METHOD}")
            ready = lambda body, call=call: call(body, wait_for_ready=True, timeout=60)  # noqa: E731
            times = sorted(followed(ready, turn, 3 if quick else 15))
        results[name] = {"p50": times[len(times) // 2] * 1e3, "max": times[-1] * 1e3}
    return results


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    counts = {f"c{number}": EACH for number in range(CLUSTERS)}
    spread, single = snapshot(counts), snapshot({"c0": CLUSTERS * EACH})
    return {
        "apply_ms": first(spread),
        "apply_one_cluster_ms": first(single),
        "change_ms": change(spread, "c7", EACH),
        "change_one_cluster_ms": change(single, "c0", CLUSTERS * EACH),
        "bytes_each": bytes_each(counts),
        "used_ms": against_grpcio(options.get("server_core", options["core"]), bool(options.get("quick"))),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(measure)
    else:
        cores = sorted(os.sched_getaffinity(0))
        print(json.dumps(measure({"core": cores[0], "server_core": cores[-1], "quick": True}), indent=2))
