"""The slow-pod test over HTTP, on any machine: the slow pod answers once so many other requests have been answered.

Ten asyncio servers and twenty callers on one loop. Time is counted in answers, because milliseconds of a busy machine
say nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from meshlib import Mesh
from meshlib.model.lb import LbPolicy, LeastRequest, PeakEwma, RoundRobin
from meshlib.sources.static import StaticSource, static_snapshot

PODS, CALLERS, REQUESTS = 10, 20, 3_000
HELD = 600  # answers of others that a request to the slow pod waits for
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Pods:
    """`asked` counts requests by port; `answered` all answers so far."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.answered = 0
        self.slow = -1
        self.callers = CALLERS
        self.serving: set[asyncio.Task[None] | None] = set()
        self._held: list[tuple[int, Callable[[], None]]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        self.serving.add(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked[port] += 1
                if port == self.slow:
                    await self._hold()
                writer.write(ANSWER)
                self.answered += 1
                self.let_go()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _hold(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self._held.append((self.answered + HELD, lambda: done.done() or done.set_result(None)))
        self.let_go()
        await done

    def let_go(self) -> None:
        everybody_waits = len(self._held) >= self.callers
        while self._held and (everybody_waits or self._held[0][0] <= self.answered):
            self._held.pop(0)[1]()


@asynccontextmanager
async def meshed(policy: LbPolicy) -> AsyncIterator[tuple[Pods, Mesh]]:
    pods = Pods()
    servers = [await asyncio.start_server(pods.serve, "127.0.0.1", 0) for _ in range(PODS)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    pods.slow = ports[-1]
    made = static_snapshot({"pods": [f"127.0.0.1:{port}" for port in ports]})
    cluster = replace(made.clusters["pods"], lb_policy=policy)
    async with Mesh(StaticSource(replace(made, clusters={**made.clusters, "pods": cluster})), seed=1) as mesh:
        yield pods, mesh
    for server in servers:
        server.close()
    await asyncio.gather(*(task for task in pods.serving if task is not None))


async def share_of_the_slow_pod(policy: LbPolicy) -> tuple[float, float]:
    """(Its share of the requests, how many answers went by during the 99th percentile of requests)."""
    waited: list[int] = []
    async with meshed(policy) as (pods, mesh), mesh.http.async_client(base_url="http://pods") as client:

        async def caller() -> None:
            for _ in range(REQUESTS // CALLERS):
                before = pods.answered
                assert (await client.get("/")).status_code == 200
                waited.append(pods.answered - before)
            pods.callers -= 1
            pods.let_go()

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return pods.asked[pods.slow] / REQUESTS, sorted(waited)[int(0.99 * REQUESTS)]


@pytest.mark.parametrize("policy", [LeastRequest(), LeastRequest(full_scan=True), PeakEwma()])
async def test_fewer_than_one_request_in_a_hundred_meets_the_slow_pod(policy: LbPolicy) -> None:
    share, p99 = await share_of_the_slow_pod(policy)
    assert share < 0.01
    assert p99 < 3 * CALLERS


async def test_round_robin_sends_it_a_tenth() -> None:
    share, p99 = await share_of_the_slow_pod(RoundRobin())
    assert share == pytest.approx(0.1, abs=0.01)
    assert p99 > 5 * CALLERS
