"""Which endpoints are out of reach, with connections that are made up."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from meshlib.engine.runtime import Runtime
from meshlib.health.background import Background
from meshlib.health.reach import BACKOFF, Reach
from meshlib.model.backoff import BackoffPolicy
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from parts.flow import Player, at_time, get
from parts.xds import eventually

QUICK = BackoffPolicy(base=0.02, factor=1.6, maximum=0.2, jitter=0.2)


@dataclass
class World:
    """Ports below 50 refuse, those above 90 say nothing, unless they are `up`."""

    up: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    opened: list[Runtime] = field(default_factory=list)

    async def connect(self, address: Address) -> None:
        self.asked.append(address.port)
        if address.port in self.up:
            return
        if address.port > 90:
            await asyncio.sleep(60)
        raise ConnectionRefusedError

    def runtime(self, *priorities: list[int], timeout: float = 5.0, backoff: BackoffPolicy = QUICK) -> Runtime:
        made = Runtime(random.Random(1), unknown_hosts="reject")
        made.attached.reach = Reach(made, timeout, random.Random(2), connect=self.connect, backoff=backoff)
        groups = tuple(
            LocalityLbEndpoints(tuple(LbEndpoint(Address("10.0.0.1", port)) for port in ports), priority=number)
            for number, ports in enumerate(priorities)
        )
        cluster = Cluster("up", load_assignment=ClusterLoadAssignment("up", groups))
        made.install(made.compile(Snapshot(clusters={"up": cluster}), None))
        self.opened.append(made)
        return made


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for runtime in made.opened:
        reach: Any = runtime.attached.reach
        reach.close()


def fail(runtime: Runtime, port: int) -> None:
    """A call's connection to this one has failed."""
    cluster = runtime.plan.clusters["up"]
    host = cluster.balancer.host_at(f"10.0.0.1:{port}")
    assert host is not None
    assert runtime.attached.reach is not None
    runtime.attached.reach.failed(cluster, host)


def lost(runtime: Runtime) -> set[int]:
    hosts = runtime.plan.clusters["up"].balancer.hosts
    return {host.endpoint.address.port for host in hosts if host.cell.out_of_reach}


def loads(runtime: Runtime) -> list[int]:
    view = runtime.plan.clusters["up"].balancer.view()
    assert view is not None
    return [load.healthy for load in view.loads]


def test_one_failure_has_the_others_looked_at(world: World) -> None:
    runtime = world.runtime([*range(1, 41)], [80])
    assert loads(runtime) == [100, 0]
    fail(runtime, 7)
    eventually(lambda: lost(runtime) == set(range(1, 41)), "all that refuse are lost")
    assert loads(runtime) == [0, 100]


def test_the_search_ends_with_the_first_that_answers(world: World) -> None:
    world.up = set(range(2, 41))
    runtime = world.runtime([*range(1, 41)], [80])
    fail(runtime, 1)
    eventually(lambda: len(world.asked) >= 2, "one of the others, and the lost one again")
    eventually(lambda: world.asked.count(1) >= 3, "that one goes on being tried")
    assert lost(runtime) == {1}
    assert len([port for port in world.asked if port != 1]) <= 2
    assert loads(runtime) == [100, 0], "it is not missed"


def test_those_that_say_nothing_are_lost_when_the_time_is_over(world: World) -> None:
    runtime = world.runtime([91, 92, 93], [80], timeout=0.3)
    fail(runtime, 91)
    eventually(lambda: lost(runtime) == {91, 92, 93}, "lost")
    assert loads(runtime) == [0, 100]


def test_what_is_lost_is_tried_until_it_answers(world: World) -> None:
    runtime = world.runtime([1, 2], [80])
    fail(runtime, 1)
    eventually(lambda: loads(runtime) == [0, 100], "left")
    world.up = {2}
    eventually(lambda: lost(runtime) == {1}, "the second is found")
    assert loads(runtime) == [100, 0]
    world.up = set()
    fail(runtime, 2)
    eventually(lambda: lost(runtime) == {1, 2}, "and lost again")
    world.up = {1, 2}
    eventually(lambda: lost(runtime) == set(), "all is well")
    eventually(lambda: not runtime.attached.reach._lost, "and nothing is tried any more")  # type: ignore[union-attr]
    asked = len(world.asked)
    threading.Event().wait(0.3)
    assert len(world.asked) == asked


def test_where_all_are_lost_all_are_balanced_to(world: World) -> None:
    runtime = world.runtime([1], [2])
    fail(runtime, 1)
    fail(runtime, 2)
    eventually(lambda: lost(runtime) == {1, 2}, "lost")
    assert loads(runtime) == [50, 50], "panic: by the number of hosts"


def test_an_endpoint_that_is_gone_is_not_tried(world: World) -> None:
    runtime = world.runtime([1], [80])
    fail(runtime, 1)
    eventually(lambda: lost(runtime) == {1}, "lost")
    runtime.install(runtime.compile(Snapshot(), runtime.plan))
    eventually(lambda: not runtime.attached.reach._lost, "let go")  # type: ignore[union-attr]


def test_one_priority_has_nothing_to_fail_over_to(world: World) -> None:
    runtime = world.runtime([1, 2])
    assert runtime.plan.clusters["up"].reach is None
    assert runtime.plan.clusters["up"].connect_timeout == 5.0
    assert world.runtime([1], [2], timeout=0.7).plan.clusters["up"].connect_timeout == 0.7


def test_grpcs_back_off() -> None:
    class Middle:
        def random(self) -> float:
            return 0.5

    assert [BACKOFF.delay(tries, Middle()) for tries in (1, 2, 3, 20)] == pytest.approx([1.0, 1.6, 2.56, 120.0])


def test_who_accepts_connections_and_fails_is_asked_ever_less(world: World) -> None:
    world.up = {1}
    slow = BackoffPolicy(base=0.02, factor=1.6, maximum=60.0, jitter=0.0)
    runtime = world.runtime([1], [80], backoff=slow)
    for tries in range(1, 6):
        fail(runtime, 1)
        eventually(lambda: lost(runtime) == {1}, "lost")
        eventually(lambda: lost(runtime) == set(), "found")
        reach: Any = runtime.attached.reach
        eventually(lambda: not reach._lost, "settled")  # noqa: B023
        assert [count for count, _ in reach._tries.values()] == [tries]


def test_the_background_begins_anew_after_it_was_closed() -> None:
    background = Background("test-background")
    background.close()
    for _ in range(2):
        where: queue.SimpleQueue[str] = queue.SimpleQueue()
        background.call(partial(lambda told: told.put(threading.current_thread().name), where))
        assert where.get(timeout=5) == "test-background"
        background.close()
        background.close()


def test_what_runs_in_the_background_is_given_up_with_it() -> None:
    background, ended = Background("test-background"), threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    background.call(lambda: background.spawn(forever()))
    begun = threading.Event()
    background.call(begun.set)
    assert begun.wait(5)
    background.close()
    assert ended.is_set()


def test_attempts_tell_of_their_connections() -> None:
    """Failed, doubted, reached; and the balancer's own observer hears everything as before."""

    told: list[tuple[str, str]] = []

    class Told:
        timeout = 3.0

        def failed(self, cluster: Any, host: Any) -> None:
            told.append(("failed", host.address))

        def doubted(self, cluster: Any, host: Any) -> None:
            told.append(("doubted", host.address))

        def reached(self, cluster: Any, host: Any) -> None:
            told.append(("reached", host.address))

    runtime = Runtime(random.Random(1), unknown_hosts="reject")
    runtime.attached.reach = Told()
    groups = tuple(LocalityLbEndpoints((LbEndpoint(Address("10.0.0.1", 1 + at)),), priority=at) for at in (0, 1))
    cluster = Cluster("up", load_assignment=ClusterLoadAssignment("up", groups))

    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"))
    routes = {"routes": RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),))}
    runtime.install(runtime.compile(Snapshot(clusters={"up": cluster}, routes=routes), None))

    def ends(outcome: Outcome) -> list[tuple[str, str]]:
        told.clear()
        player = Player(runtime, get("up"))
        player.send(at_time(outcome, 0.0))
        player.close()
        return list(told)

    assert ends(Outcome(failure=Failure.CONNECT, request_sent=False)) == [("failed", "10.0.0.1:1")]
    assert ends(Outcome(failure=Failure.CONNECT_TIMEOUT, request_sent=False)) == [("failed", "10.0.0.1:1")]
    assert ends(Outcome(failure=Failure.TIMEOUT, request_sent=False)) == [("doubted", "10.0.0.1:1")]
    assert ends(Outcome(failure=Failure.PER_TRY_TIMEOUT, request_sent=True)) == []
    assert ends(Outcome(failure=Failure.RESET)) == []
    assert ends(Outcome(200, [])) == []
    runtime.state.cluster("up").endpoint("10.0.0.1:1").out_of_reach = True
    runtime.state.cluster("up").endpoint("10.0.0.1:2").out_of_reach = True
    runtime.state.cluster("up").availability_changed()
    assert [word for word, _ in ends(Outcome(200, []))] == ["reached"]
