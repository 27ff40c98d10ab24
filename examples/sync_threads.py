"""One blocking client for many threads: `python -m examples.sync_threads`.

The client's pools, balancing and counters are safe to share; weights decide who gets which share of the calls.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from examples.tiny_server import TinyServer
from meshlib import Mesh

THREADS, CALLS = 8, 2000

stable, canary = TinyServer("stable"), TinyServer("canary")
mesh = Mesh.static(
    {"stable": [stable.address], "canary": [canary.address]},
    routes={"payments": {"stable": 90, "canary": 10}},
    retries=2,
)


def main() -> None:
    with mesh, mesh.http.client("payments") as client, ThreadPoolExecutor(THREADS) as threads:
        began = time.perf_counter()
        answers = Counter(threads.map(lambda _: client.get("/charge").raise_for_status().text, range(CALLS)))
        took = time.perf_counter() - began
    print(f"{CALLS} calls by {THREADS} threads in {took:.2f} s: {dict(answers)}")
    print({name: value for name, value in mesh.stats().items() if name.endswith("upstream_rq_total")})


if __name__ == "__main__":
    main()
