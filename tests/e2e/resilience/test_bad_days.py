"""The bad day: one of ten pods dies or freezes under load, or all of them fail. Callers of both kinds at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import pytest

from meshlib import Mesh
from meshlib.model.cluster import CircuitBreakers, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.lb import LeastRequest
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import RetryPolicy, Route, RouteAction
from meshlib.sources.static import static_cluster
from parts.fixtures import Servers
from parts.pods import Pod

PODS, TASKS, THREADS = 10, 32, 2
RETRIES = RetryPolicy(
    ("connect-failure", "reset", "gateway-error"),
    num_retries=2,
    per_try_timeout=0.5,
    previous_hosts=True,
    host_selection_retry_max_attempts=5,
)
DETECTION = OutlierDetection(consecutive_5xx=5, base_ejection_time=30.0, max_ejection_percent=20)
BUDGET = CircuitBreakers(Thresholds(retry_budget=RetryBudget(20.0, 10)))


@dataclass
class Flood:
    """Calls without pause until it is told to stop; `failed` holds when, and how."""

    mesh: Mesh
    calls: int = 0
    failed: list[tuple[float, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=target) for target in (self._loop, *[self._block] * THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a caller hangs"

    def until(self, calls: int, within: float = 60.0) -> None:
        """Wait until so many calls have ended."""
        deadline = time.monotonic() + within
        while self.calls < calls:
            assert time.monotonic() < deadline, f"{self.calls} of {calls} calls within {within:g} s"
            time.sleep(0.01)

    def _told(self, problem: str | None) -> None:
        if problem is not None:
            self.failed.append((time.monotonic(), problem))
        self.calls += 1  # a call that is lost here is one fewer, and makes the share of failures larger

    def _block(self) -> None:
        with self.mesh.http.client("pods") as client:
            while not self.over.is_set():
                try:
                    status = client.get("/").status_code
                    self._told(None if status == 200 else str(status))
                except Exception as error:  # noqa: BLE001  whatever it is, the call failed
                    self._told(repr(error))

    def _loop(self) -> None:
        async def one(client: object) -> None:
            while not self.over.is_set():
                try:
                    status = (await client.get("/")).status_code  # type: ignore[attr-defined]
                    self._told(None if status == 200 else str(status))
                except Exception as error:  # noqa: BLE001  as above
                    self._told(repr(error))

        async def run() -> None:
            async with self.mesh.http.async_client("pods") as client:
                await asyncio.gather(*(one(client) for _ in range(TASKS)))

        asyncio.run(run())


@pytest.fixture
def pods(servers: Servers) -> list[Pod]:
    folder = servers.folder("pods")
    return [servers.keep(Pod(folder / f"{number}.log")) for number in range(PODS)]


@pytest.fixture
def mesh(pods: list[Pod]) -> Iterator[Mesh]:
    made = static_cluster("pods", [pod.address for pod in pods], outlier_detection=DETECTION, lb_policy=LeastRequest())
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("pods", retry_policy=RETRIES))
    with Mesh.static({"pods": replace(made, circuit_breakers=BUDGET)}, routes={"pods": [route]}, seed=1) as mesh:
        yield mesh


@pytest.mark.parametrize("death", [Pod.kill, Pod.pause], ids=["kill -9", "SIGSTOP"])
def test_the_dead_pod(mesh: Mesh, pods: list[Pod], death: Callable[[Pod], None]) -> None:
    """At most one call in ten thousand fails, and the dead pod is soon out of use."""
    with Flood(mesh) as flood:
        flood.until(2_000)
        death(pods[3])
        flood.until(14_000)
        out = mesh.runtime.healing.out()
        stats = mesh.stats()
    assert len(flood.failed) <= flood.calls / 10_000, flood.failed[:5]
    assert out == {("pods", pods[3].address): "isolated"}
    assert stats["cluster.pods.upstream_rq_retry_success"] > 0, "it was the retries that did it"


def test_the_storm(mesh: Mesh, pods: list[Pod]) -> None:
    """All pods fail for ten seconds: the mesh does not make it worse, and it is over when they are well again."""
    with Flood(mesh) as flood:
        flood.until(1_000)
        assert not flood.failed
        calls, attempts = flood.calls, sum(pod.count for pod in pods)
        for pod in pods:
            pod.fail()
        time.sleep(10.0)
        stormed, sent = flood.calls - calls, sum(pod.count for pod in pods) - attempts
        for pod in pods:
            pod.heal()
        healed = time.monotonic()
        flood.until(flood.calls + 3_000)
        time.sleep(0.5)
    assert stormed > 1_000
    assert sent <= 1.25 * stormed + TASKS + THREADS, f"{sent} attempts for {stormed} calls"
    assert len(flood.failed) > 0.9 * stormed, "it was a storm"
    last = max(at for at, _ in flood.failed)
    assert last - healed <= 2.0, f"the last failure came {last - healed:.1f} s after they were well"
