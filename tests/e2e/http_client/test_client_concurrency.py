"""One client used from many sides at once: threads, tasks, event loops, and calls that are cancelled."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from e2e.http_client.conftest import held, still_held
from e2e.http_client.doors import LIBRARIES, AsyncDoor, Door
from meshlib import Mesh
from meshlib.engine.events import CallEnded
from meshlib.http.library import LibraryName
from meshlib.model.cluster import CircuitBreaker, CircuitBreakers, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.route import RetryPolicy
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply, Request

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  it is seen from outside: there is no event to wait for
            await asyncio.sleep(0.005)


def echo(request: Request) -> Reply:
    return Reply(200, request.target.encode())


def test_sixty_calls_at_once_get_each_its_own_answer(door: Door, static: Static, fast_backend: Fast) -> None:
    backends = [fast_backend(f"b{index}", echo) for index in range(3)]
    mesh = static({"payments": [backend.address for backend in backends]})
    client = door.client(mesh)
    for _ in range(5):
        answers = client.together(("GET", f"/{number}") for number in range(60))
        assert [answer.text for answer in answers] == [f"/{number}" for number in range(60)]
    assert sum(backend.count for backend in backends) == 300
    assert mesh.stats()["cluster.payments.upstream_rq_total"] == 300


@pytest.mark.parametrize("library", LIBRARIES)
def test_sixteen_threads_one_client(static: Static, fast_backend: Fast, library: LibraryName) -> None:
    backends = [fast_backend(f"b{index}", echo) for index in range(3)]
    mesh = static({"payments": [backend.address for backend in backends]}, retries=2)
    client: Any = mesh.http.client("payments", library=library)

    def work(thread: int) -> list[bool]:
        return [client.get(f"/{thread}/{number}").text == f"/{thread}/{number}" for number in range(50)]

    with client, ThreadPoolExecutor(16) as threads:
        right = [each for answers in threads.map(work, range(16)) for each in answers]
    assert len(right) == 800
    assert all(right)
    assert still_held(mesh) == {}
    assert max(backend.connections_made for backend in backends) <= 16


@pytest.mark.parametrize("library", LIBRARIES)
def test_several_event_loops_at_once_share_a_transport(
    static: Static, fast_backend: Fast, library: LibraryName
) -> None:
    """Each loop on its own thread; a connection of one loop must never serve another."""
    mesh = static({"payments": [fast_backend(f"b{index}", echo).address for index in range(2)]})
    transport: Any = mesh.http.async_transport(library=library)
    begin = threading.Barrier(6)

    async def calls(loop: int) -> int:
        client = LIBRARIES[library].AsyncClient(transport=transport, base_url="http://payments", timeout=20)
        await asyncio.to_thread(begin.wait)
        right = 0
        for number in range(30):
            texts = await asyncio.gather(*(client.get(f"/{loop}/{number}/{i}") for i in range(3)))
            right += [text.text for text in texts] == [f"/{loop}/{number}/{i}" for i in range(3)]
        await transport.aclose()
        return right

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda loop: asyncio.run(calls(loop)), range(6))) == [30] * 6
    assert still_held(mesh) == {}


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # the loops are closed under their sockets
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("library", LIBRARIES)
def test_loops_that_come_and_go_leave_no_count_behind(static: Static, fast_backend: Fast, library: LibraryName) -> None:
    cluster = static_cluster("payments", [fast_backend("b", echo).address])
    few = CircuitBreakers(default=Thresholds(max_connections=3))
    mesh = static({"payments": replace(cluster, circuit_breakers=few)})
    client: Any = mesh.http.async_client("payments", library=library, timeout=5)

    async def call(number: int) -> str:
        answer: str = (await client.get(f"/{number}")).text
        return answer

    for number in range(10):
        assert asyncio.run(call(number)) == f"/{number}"
        assert len(mesh.runtime.state.clusters["payments"].default.connections) == 1
    asyncio.run(client.aclose())
    gc.collect()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_pool_is_whole_after_cancellation_under_contention(
    static: Static, fast_backend: Fast, library: LibraryName, seed: int
) -> None:
    """20 tasks, 150 random cancels, 10 connections; retries, breaker and outlier detection in play."""
    rng = random.Random(seed)

    def unsteady(request: Request) -> Reply:
        status = 503 if rng.random() < 0.2 else 200
        return Reply(status, b"x" * rng.choice([10, 200_000]), delay=rng.choice([0.0, 0.0, 0.002, 0.01]))

    backend = fast_backend("unsteady", unsteady)
    thresholds = Thresholds(max_connections=10, retry_budget=RetryBudget(50.0, 5))
    cluster = replace(
        static_cluster(
            "payments",
            [backend.address],
            circuit_breaker=CircuitBreaker(fail_max=50, reset_timeout=0.01),
            outlier_detection=OutlierDetection(consecutive_5xx=20, base_ejection_time=0.05),
        ),
        circuit_breakers=CircuitBreakers(default=thresholds),
    )
    policy = RetryPolicy(("5xx",), num_retries=2, base_interval=0.005)
    mesh = static({"payments": cluster}, retries=policy, seed=seed)

    async def scenario() -> None:
        async with mesh.http.async_client("payments", library=library) as client:

            async def worker() -> None:
                while True:
                    response = await client.get("/")
                    assert response.status_code in (200, 503)

            tasks = [asyncio.create_task(worker()) for _ in range(20)]
            for _ in range(150):
                await asyncio.sleep(rng.random() * 0.004)
                index = rng.randrange(20)
                tasks[index].cancel()
                (ended,) = await asyncio.gather(tasks[index], return_exceptions=True)
                assert isinstance(ended, asyncio.CancelledError), ended
                tasks[index] = asyncio.create_task(worker())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)
            assert held(mesh, connections=False) == {}
            connections = mesh.runtime.state.clusters["payments"].default.connections
            assert len(connections) <= 10
            backend.behave(Reply(200, b"fine"))
            answers = await asyncio.wait_for(asyncio.gather(*(client.get("/") for _ in range(100))), 20)
            assert {answer.text for answer in answers} == {"fine"}

    asyncio.run(scenario())
    assert still_held(mesh) == {}


def test_a_cancelled_call_that_waits_for_its_retry_gives_everything_back(static: Static, fast_backend: Fast) -> None:
    policy = RetryPolicy(("5xx",), num_retries=5, base_interval=60.0, max_interval=600.0)
    mesh = static({"payments": [fast_backend("down", Reply(503)).address]}, retries=policy, timeout=None)

    async def scenario() -> None:
        async with mesh.http.async_client("payments") as client:
            task = asyncio.create_task(client.get("/"))
            await until(lambda: bool(mesh.runtime.state.cluster("payments").default.retries))
            assert held(mesh, connections=False) == {"payments default retries": 1}
            ended: list[Any] = []
            mesh.on_event(ended.append)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert held(mesh, connections=False) == {}
            assert [(type(event), event.flag) for event in ended] == [(CallEnded, "DC")]

    asyncio.run(asyncio.wait_for(scenario(), 10))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_task_group_ends_its_calls(static: Static, fast_backend: Fast, library: LibraryName) -> None:
    mesh = static({"payments": [fast_backend("slow", Reply(delay=30)).address]})

    async def scenario() -> None:
        async with mesh.http.async_client("payments", library=library) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.gather(*(client.get("/") for _ in range(20)))
            assert held(mesh, connections=False) == {}

    asyncio.run(scenario())


def test_closing_a_client_with_calls_under_way_ends_them(static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("slow", Reply(delay=30)).address]})
    door = AsyncDoor("httpx")

    async def scenario() -> list[Any]:
        client = mesh.http.async_client("payments")
        tasks = [asyncio.create_task(client.get("/")) for _ in range(3)]
        await asyncio.sleep(0.1)
        await client.aclose()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)

    for ended in asyncio.run(scenario()):
        assert isinstance(ended, door.error("TransportError"))
    door.close()
    assert still_held(mesh) == {}


def test_closing_a_blocking_client_wakes_its_threads(static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("slow", Reply(delay=30)).address]})
    client = mesh.http.client("payments")
    ended: list[BaseException] = []

    def call() -> None:
        try:
            client.get("/")
        except Exception as error:  # noqa: BLE001  the test judges it
            ended.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(mesh.runtime.state.cluster("payments").default.requests) < 3:
        threading.Event().wait(0.005)
    threading.Event().wait(0.05)
    client.close()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 3
    assert still_held(mesh) == {}
