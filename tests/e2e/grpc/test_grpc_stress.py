"""Many streams at once, cancellations and deadlines in a race, servers that die: nothing is lost and nothing held."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

import grpc
import pytest

from e2e.http_client.conftest import still_held
from meshlib import CallError, Mesh
from meshlib.model.cluster import CircuitBreakers, Thresholds
from meshlib.sources.static import StaticSource, static_cluster, static_snapshot
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.xds import eventually

Backends = Callable[[int], list[GrpcBackend]]
KINDS = ("Unary", "ServerStream", "ClientStream", "Both")
# By default 1024 requests and three retries at once, which hide no crash under load.
GENEROUS = CircuitBreakers(Thresholds(max_requests=5000, max_retries=1000))
ENDS = {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}


@pytest.fixture
def mesh_of() -> Iterator[Callable[..., Mesh]]:
    """mesh_of(backends, **options): a mesh of them as `payments`; in the end it holds nothing."""
    made: list[Mesh] = []

    def make(backends: list[GrpcBackend], **options: Any) -> Mesh:
        cluster = static_cluster("payments", [one.address for one in backends])
        made.append(Mesh.static({"payments": replace(cluster, circuit_breakers=GENEROUS)}, **{"seed": 5} | options))
        return made[-1]

    yield make
    for mesh in made:
        mesh.close()
        assert still_held(mesh) == {}


def let_go(backends: list[GrpcBackend]) -> None:
    eventually(lambda: all(backend.state.active == 0 for backend in backends), "the backends are let go")


# ---------------------------------------------------------------------- many streams


async def test_a_thousand_streams_at_once(
    mesh_of: Callable[..., Mesh], echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    """All are open at the same moment, on two connections, and all are answered to the end."""
    backends = echo_backends(2)
    mesh = mesh_of(backends)
    begun, opened, everybody = Counter[str](), asyncio.Event(), asyncio.Event()

    async def converse(echo: Any, number: int) -> list[str]:
        async def asks() -> AsyncIterator[Any]:
            yield grpc_stubs.ask(f"{number} first")
            await everybody.wait()
            yield grpc_stubs.ask(f"{number} second")

        heard = []
        async for answer in echo.Both(asks()):
            heard.append(answer.text)
            if len(heard) == 1:
                begun[answer.backend] += 1
                if begun.total() == 1000:
                    opened.set()
        return heard

    async with mesh.grpc.aio_channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        talks = [asyncio.create_task(converse(echo, number)) for number in range(1000)]
        await asyncio.wait_for(opened.wait(), 60)
        assert begun == {"a": 500, "b": 500}
        assert sum(backend.state.active for backend in backends) == 1000
        everybody.set()
        heard = await asyncio.gather(*talks)
    assert heard == [[f"{number} first", f"{number} second"] for number in range(1000)]
    let_go(backends)


def test_streams_of_many_threads(mesh_of: Callable[..., Mesh], echo_backends: Backends, grpc_stubs: Stubs) -> None:
    backends, count = echo_backends(2), 150
    mesh = mesh_of(backends)
    together = threading.Barrier(count)

    def converse(echo: Any, number: int) -> list[str]:
        stream = echo.ServerStream(grpc_stubs.ask(str(number), answers=3))
        heard = [next(stream).text]
        together.wait(30)
        return [*heard, *(answer.text for answer in stream)]

    with mesh.grpc.channel("payments") as channel, ThreadPoolExecutor(count) as threads:
        echo = grpc_stubs.echo(channel)
        heard = list(threads.map(lambda number: converse(echo, number), range(count)))
    assert heard == [[str(number)] * 3 for number in range(count)]
    let_go(backends)


# ---------------------------------------------------------------------- races


def scripted(rng: random.Random, stubs: Stubs) -> tuple[str, Any, dict[str, Any]]:
    """A call of any kind that takes about as long as its deadline allows."""
    kind = rng.choice(KINDS)
    script = {"delay": rng.uniform(0, 0.03), "answers": rng.choice((0, 3)), "pause": rng.uniform(0, 0.01)}
    ask = stubs.ask(**script)
    timeout = rng.choice((None, rng.uniform(0.0, 0.05)))
    return kind, iter([ask, ask]) if kind in ("ClientStream", "Both") else ask, {"timeout": timeout}


async def test_cancellations_and_deadlines_in_a_race(
    mesh_of: Callable[..., Mesh], echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    backends, rng = echo_backends(2), random.Random(20)
    mesh = mesh_of(backends, retries=2)
    calls: list[Any] = []

    async def one(echo: Any) -> str:
        kind, request, options = scripted(rng, grpc_stubs)
        call = getattr(echo, kind)(request, **options)
        if rng.random() < 0.5:
            asyncio.get_running_loop().call_later(rng.uniform(0, 0.05), call.cancel)
        try:
            if kind in ("Unary", "ClientStream"):
                await call
            else:
                async for _ in call:
                    pass
        except asyncio.CancelledError:
            calls.append(call)
            return "CANCELLED"
        except grpc.RpcError as error:
            return str(error.code().name)
        return str((await call.code()).name)

    async def dropped(echo: Any) -> str:
        """A task that is cancelled from outside, wherever it is."""
        task = asyncio.create_task(one(echo))
        await asyncio.sleep(rng.uniform(0, 0.03))
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        return "CANCELLED" if isinstance(ended, asyncio.CancelledError) else ended

    async with mesh.grpc.aio_channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        work = [one(echo) if rng.random() < 0.7 else dropped(echo) for _ in range(1500)]
        ends = Counter(await asyncio.gather(*work))
        await asyncio.to_thread(eventually, lambda: all(call.done() for call in calls), "cancelled calls are over")
    assert set(ends) == ENDS
    let_go(backends)


def test_cancellations_and_deadlines_of_threads(
    mesh_of: Callable[..., Mesh], echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    backends = echo_backends(2)
    mesh = mesh_of(backends, retries=2)

    def one(echo: Any, seed: int) -> str:
        rng = random.Random(seed)
        kind, request, options = scripted(rng, grpc_stubs)
        single = kind in ("Unary", "ClientStream")
        method = getattr(echo, kind)
        call = (method.future if single else method)(request, **options)
        timer = threading.Timer(rng.uniform(0, 0.05), call.cancel)
        if rng.random() < 0.5:
            timer.start()
        try:
            if single:
                call.result()
            else:
                for _ in call:
                    pass
        except grpc.FutureCancelledError:
            return "CANCELLED"
        except grpc.RpcError as error:
            return str(error.code().name)
        finally:
            timer.cancel()
        return str(call.code().name)

    with mesh.grpc.channel("payments") as channel, ThreadPoolExecutor(16) as threads:
        echo = grpc_stubs.echo(channel)
        ends = Counter(threads.map(lambda seed: one(echo, seed), range(600)))
    assert set(ends) == ENDS
    let_go(backends)


# ---------------------------------------------------------------------- servers that die


class Load:
    """Unary calls in a loop, of threads or of tasks, until it is told to stop."""

    def __init__(self, mesh: Mesh, stubs: Stubs, door: str) -> None:
        self.served: Counter[str] = Counter()
        self.failures: list[str] = []
        self._done = threading.Event()
        self._mesh, self._stubs = mesh, stubs
        self._thread = threading.Thread(target=self._threads if door == "sync" else self._loop)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(30)

    def reaches(self, name: str) -> None:
        """Until a backend serves (again)."""
        before = self.served[name]
        eventually(lambda: self.served[name] > before, f"{name} serves")

    def _note(self, call: Callable[[], Any]) -> None:
        try:
            self.served[call().backend] += 1
        except grpc.RpcError as error:
            self.failures.append(str(error))

    def _threads(self) -> None:
        def work(echo: Any) -> None:
            while not self._done.is_set():
                self._note(lambda: echo.Unary(self._stubs.ask(), timeout=10))

        with self._mesh.grpc.channel("payments") as channel, ThreadPoolExecutor(8) as threads:
            list(threads.map(work, [self._stubs.echo(channel)] * 8))

    def _loop(self) -> None:
        async def work(echo: Any) -> None:
            while not self._done.is_set():
                try:
                    self.served[(await echo.Unary(self._stubs.ask(), timeout=10)).backend] += 1
                except grpc.RpcError as error:
                    self.failures.append(str(error))

        async def all_of_it() -> None:
            async with self._mesh.grpc.aio_channel("payments") as channel:
                await asyncio.gather(*(work(self._stubs.echo(channel)) for _ in range(8)))

        asyncio.run(all_of_it())


@pytest.mark.parametrize("door", ["sync", "aio"])
def test_a_server_is_killed_under_load(
    mesh_of: Callable[..., Mesh], grpc_backend: Callable[..., GrpcBackend], grpc_stubs: Stubs, door: str
) -> None:
    """Where the route retries no call fails: neither those in flight nor those that find nobody listening."""
    backends = [grpc_backend(name) for name in ("one", "two", "three")]
    with Load(mesh_of(backends, retries=3), grpc_stubs, door) as load:
        for backend in backends:
            load.reaches(backend.name)
        for victim in backends[:2]:
            victim.kill()
            others = [one for one in backends if one is not victim]
            for other in others * 20:
                load.reaches(other.name)
            victim.restart()
            load.reaches(victim.name)
    assert load.failures == []


def told(error: Any) -> str:
    return f"{error.code().name} {error.flag if isinstance(error, CallError) else ''}"


@pytest.mark.parametrize("door", ["sync", "aio"])
def test_a_server_is_killed_in_mid_stream(
    mesh_of: Callable[..., Mesh], grpc_backend: Callable[..., GrpcBackend], grpc_stubs: Stubs, door: str
) -> None:
    """Its streams fail with what they have received, and are not retried; those of others go on."""
    victim, survivor = grpc_backend("victim"), grpc_backend("survivor")
    mesh = mesh_of([victim, survivor], retries=3)
    kill = threading.Timer(0.4, victim.kill)
    kill.start()
    ask = grpc_stubs.ask(answers=30, pause=0.05)

    def follow(echo: Any) -> tuple[str, int, str]:
        heard = []
        try:
            heard.extend(answer.backend for answer in echo.ServerStream(ask))
        except grpc.RpcError as error:
            return heard[0], len(heard), told(error)
        return heard[0], len(heard), "OK"

    async def afollow(echo: Any) -> tuple[str, int, str]:
        heard = []
        try:
            async for answer in echo.ServerStream(ask):
                heard.append(answer.backend)  # noqa: PERF401  what came before the error counts
        except grpc.RpcError as error:
            return heard[0], len(heard), told(error)
        return heard[0], len(heard), "OK"

    async def all_of_them() -> list[tuple[str, int, str]]:
        async with mesh.grpc.aio_channel("payments") as channel:
            return await asyncio.gather(*(afollow(grpc_stubs.echo(channel)) for _ in range(20)))

    if door == "aio":
        ends = asyncio.run(all_of_them())
    else:
        with mesh.grpc.channel("payments") as channel, ThreadPoolExecutor(20) as threads:
            ends = list(threads.map(follow, [grpc_stubs.echo(channel)] * 20))
    kill.join()
    by_backend = {name: {(code, 0 < count < 30) for who, count, code in ends if who == name} for name, _, _ in ends}
    assert by_backend == {"victim": {("UNAVAILABLE UC", True)}, "survivor": {("OK", False)}}


async def test_endpoints_leave_while_streams_run(echo_backends: Backends, grpc_stubs: Stubs) -> None:
    """Streams on an endpoint that leaves finish; calls that begin afterwards go elsewhere."""
    a, b = echo_backends(2)

    def snapshot(*backends: GrpcBackend) -> Any:
        return static_snapshot({"payments": [one.address for one in backends]})

    source = StaticSource(snapshot(a, b))
    mesh = Mesh(source, seed=5)

    async def follow(echo: Any) -> tuple[str, int]:
        heard = [answer.backend async for answer in echo.ServerStream(grpc_stubs.ask(answers=10, pause=0.03))]
        return heard[0], len(heard)

    async with mesh.grpc.aio_channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        streams = [asyncio.create_task(follow(echo)) for _ in range(100)]
        await asyncio.to_thread(eventually, lambda: a.count + b.count == 100, "all streams run")
        source.replace(snapshot(a))
        later = [(await echo.Unary(grpc_stubs.ask())).backend for _ in range(10)]
        ends = Counter(await asyncio.gather(*streams))
    assert later == ["a"] * 10
    assert ends == {("a", 10): 50, ("b", 10): 50}
    mesh.close()
    assert still_held(mesh) == {}
