"""What one call costs the mesh itself: the whole call flow, all policies on, with a wire that answers at once."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.topology import SERVICE, TENANT, bootstrap, write
from benchmarks.worker import run
from meshlib import Mesh
from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Commit, Start
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead

ENDPOINTS = (1, 100, 10_000)
ROUTES = (5, 50, 500)
REQUEST = [
    (b"Host", SERVICE.encode()),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"benchmark"),
    (TENANT[0].encode(), TENANT[1].encode()),
]
RESPONSE = [(b"content-length", b"2"), (b"content-type", b"text/plain")]


def call(mesh: Mesh, now: float) -> Callable[[], None]:
    """One call from its head to the end of its body."""
    runtime = mesh.runtime

    def one() -> None:
        head = RequestHead("GET", "http", SERVICE, "/charge", REQUEST)
        flow = call_flow(runtime, head, now, deadline=now + 60)
        command: Any = next(flow)
        if not isinstance(command, Start):
            raise TypeError(command)
        outcome = Outcome(200, RESPONSE, response=head)
        outcome.at = now
        if not isinstance(flow.send(outcome), Commit):
            raise TypeError("no commit")
        try:
            flow.send(BodyEnd(now))
        except StopIteration:
            return

    return one


def cost(endpoints: int, routes: int, folder: Path, quick: bool) -> float:
    """Microseconds a call; the best of several rounds, because all that disturbs makes it longer."""
    addresses = [(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(endpoints)]
    path = write(folder / f"{endpoints}-{routes}.json", bootstrap(addresses, routes=routes))
    with Mesh.from_file(path, seed=1) as mesh:
        one = call(mesh.wait_ready(), time.monotonic())
        number = 1000 if quick else 5000
        rounds = timeit.repeat(one, gc.enable, number=number, repeat=5 if quick else 9)
    return min(rounds) / number * 1e6


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    quick = options["quick"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "by_endpoints": {str(count): cost(count, 1, folder, quick) for count in ENDPOINTS},
            "by_routes": {str(count): cost(1, count, folder, quick) for count in ROUTES},
        }


if __name__ == "__main__":
    run(measure)
