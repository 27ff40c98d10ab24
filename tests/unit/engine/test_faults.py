"""The fault filter in the call flow: what is waited for and answered, what is counted and given back, who is told."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.engine import faults as engine_faults
from meshlib.engine.commands import Abandoned, Commit, Fail, Reply, Start, Wait
from meshlib.engine.events import CallEnded, FaultInjected
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.durations import LONGEST
from meshlib.model.fault import FAULT_FILTER, FaultAbort, FaultDelay, FaultRateLimit, HttpFault
from meshlib.model.filters import HttpFilter, PerFilterConfig, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import ALWAYS, FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.metadata import Struct
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.policy.fault import Fault
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, ENDED, Dice, Player, get, held, runtime_of

ABORT = HttpFault(abort=FaultAbort(503, percentage=ALWAYS))
DELAY = HttpFault(delay=FaultDelay(2.0, ALWAYS))
BOTH = replace(DELAY, abort=ABORT.abort)
SLOW = HttpFault(response_rate_limit=FaultRateLimit(3, ALWAYS))


def snapshot(fault: HttpFault, *, on_route: HttpFault | None = None, **more: Any) -> Snapshot:
    """One route, behind one fault filter."""
    per_filter = () if on_route is None else (PerFilterConfig(FAULT_FILTER, on_route),)
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"), typed_per_filter_config=per_filter)
    table = RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),))
    manager = HttpConnectionManager(table, (HttpFilter(FAULT_FILTER, fault), HttpFilter("router", RouterFilter())))
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    return Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)}, **more)


def of(fault: HttpFault, *, rng: Any = None, **more: Any) -> Runtime:
    return runtime_of(snapshot(fault, **more), rng=rng)


def grpc(path: str = "/a.B/C") -> RequestHead:
    return RequestHead("POST", "http", "up", path, [(b"content-type", b"application/grpc")])


def events(runtime: Runtime, kind: type) -> list[Any]:
    seen: list[Any] = []
    runtime.observers = (lambda event: seen.append(event) if isinstance(event, kind) else None,)
    return seen


# ------------------------------------------------------------------------------------------------------------ aborts


def test_an_abort_answers_at_once_and_costs_no_upstream_anything() -> None:
    runtime = of(ABORT)
    ended = events(runtime, CallEnded)
    reply = Player(runtime, get("up")).last
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.headers) == (503, b"fault filter abort", [(b"content-type", b"text/plain")])
    assert (reply.info.flag, reply.info.flags, reply.info.attempts) == (ResponseFlag.FI, (ResponseFlag.FI,), 0)
    assert [(event.status, event.flag) for event in ended] == [(503, ResponseFlag.FI)]
    assert (held(runtime), runtime.faults.active) == ({}, {})


@pytest.mark.parametrize(
    "abort, http, of_call", [(FaultAbort(503), 503, 14), (FaultAbort(200), 200, 2), (FaultAbort(None, 5), 200, 5)]
)
def test_a_grpc_call_ends_with_a_status_of_its_own(abort: FaultAbort, http: int, of_call: int) -> None:
    reply = Player(of(HttpFault(abort=replace(abort, percentage=ALWAYS))), grpc()).last
    assert (reply.status, reply.info.grpc_status) == (http, of_call)
    assert reply.headers == []  # they would be metadata


def test_a_share_is_drawn() -> None:
    fault = HttpFault(abort=FaultAbort(503, percentage=FractionalPercent(30)))
    runtime = of(fault, rng=Dice(0.29, 0.31))
    assert isinstance(Player(runtime, get("up")).last, Reply)
    assert isinstance(Player(runtime, get("up")).last, Start)


# ------------------------------------------------------------------------------------------------------------ delays


def test_a_delay_goes_before_the_attempts_and_outside_the_timeout() -> None:
    runtime = of(DELAY)
    player = Player(runtime, get("up"), now=10.0)
    assert player.last == Wait(2.0)
    assert len(runtime.faults.active) == 1
    start = player.send(12.5)
    assert isinstance(start, Start)
    assert start.deadline == 12.5 + 15.0  # the route's own, which begins now
    assert runtime.faults.active == {}
    commit = player.responds(200, 13.0)
    assert isinstance(commit, Commit)
    assert (commit.info.flag, commit.info.delayed, commit.info.flags) == (None, True, (ResponseFlag.DI,))


def test_a_delayed_call_that_fails_has_both_flags() -> None:
    runtime = of(DELAY)
    ended = events(runtime, CallEnded)
    player = Player(runtime, get("up"))
    player.send(2.0)
    assert isinstance(player.fails(Failure.CONNECT, 3.0), Fail)
    assert [event.info.flags for event in ended] == [(ResponseFlag.DI, ResponseFlag.UF)]


def test_a_delay_may_be_followed_by_an_abort() -> None:
    runtime = of(BOTH)
    player = Player(runtime, get("up"))
    assert player.last == Wait(2.0)
    reply = player.send(2.0)
    assert isinstance(reply, Reply)
    assert reply.info.flags == (ResponseFlag.DI, ResponseFlag.FI)
    assert runtime.faults.active == {}
    assert runtime.faults.stats() == {
        "fault.aborts_injected": 1,
        "fault.delays_injected": 1,
        "fault.faults_overflow": 0,
        "fault.response_rl_injected": 0,
        "fault.active_faults": 0,
    }


def test_a_deadline_ends_a_delay() -> None:
    runtime = of(DELAY)
    player = Player(runtime, get("up"), now=5.0, deadline=6.0)
    assert player.last == Wait(1.0)
    fail = player.send(6.0)
    assert isinstance(fail, Fail)
    assert fail.failure.flag is ResponseFlag.UT
    assert runtime.faults.active == {}


def test_a_delay_by_header_is_bounded() -> None:
    runtime = of(HttpFault(delay=FaultDelay(None, ALWAYS)))
    player = Player(runtime, get("up", "/", (b"X-Envoy-Fault-Delay-Request", b"18446744073709551615")))
    assert player.last == Wait(LONGEST)
    player.close()
    assert runtime.faults.active == {}


# ------------------------------------------------------------------------------------------------------- giving back


def test_a_slow_response_is_active_to_its_end() -> None:
    runtime = of(replace(SLOW, max_active_faults=1))
    player = Player(runtime, get("up"))
    assert isinstance(player.last, Start)
    commit = player.responds(200, 1.0)
    assert commit.info.response_limit == 3 * 1024
    assert len(runtime.faults.active) == 1
    other = Player(runtime, get("up"))
    assert other.responds(200, 1.0).info.response_limit is None  # one too many
    assert player.body_ends(9.0) == ENDED
    assert runtime.faults.active == {}
    assert runtime.faults.stats()["fault.faults_overflow"] == 1
    other.body_ends(9.0)


def test_grpc_knows_no_slow_responses() -> None:
    runtime = of(replace(SLOW, delay=DELAY.delay))
    player = Player(runtime, grpc())
    player.send(2.0)
    assert runtime.faults.active == {}
    assert runtime.faults.stats()["fault.response_rl_injected"] == 0


class Script:
    """A caller that does what chance says."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def run(self, player: Player) -> None:
        now = 0.0
        while player.last != ENDED:
            now += self.chance.random()
            if self.chance.random() < 0.2:
                self._leave(player, now)
                return
            match player.last:
                case Wait(seconds=seconds):
                    now += seconds
                    player.send(now)
                case Start():
                    if self.chance.random() < 0.3:
                        player.fails(self.chance.choice([Failure.CONNECT, Failure.RESET, Failure.TIMEOUT]), now)
                    else:
                        player.responds(self.chance.choice([200, 500, 503]), now)
                case Commit():
                    player.body_ends(now, self.chance.choice([None, Failure.RESET, Failure.LOCAL]))
                case Reply() | Fail():
                    player.send(None)
                case _:
                    player.send(now)

    def _leave(self, player: Player, now: float) -> None:
        if self.chance.random() < 0.5:
            player.close()
            return
        with pytest.raises((Abandoned, StopIteration)):
            player.flow.throw(Abandoned(now))


@given(
    seed=st.integers(0, 10_000),
    limit=st.none() | st.integers(0, 3),
    percent=st.sampled_from([0, 50, 100]),
    parts=st.sets(st.sampled_from(["delay", "abort", "response_rate_limit"])),
    deadline=st.none() | st.sampled_from([0.5, 3.0]),
)
def test_however_calls_end_no_fault_stays_active(
    seed: int, limit: int | None, percent: int, parts: set[str], deadline: float | None
) -> None:
    share = FractionalPercent(percent)
    whole = {
        "delay": FaultDelay(2.0, share),
        "abort": FaultAbort(503, percentage=share),
        "response_rate_limit": FaultRateLimit(1, share),
    }
    fault = HttpFault(max_active_faults=limit, **{name: whole[name] for name in parts})  # type: ignore[arg-type]
    runtime = of(fault, rng=random.Random(seed))
    players = []
    for number in range(6):
        players.append(Player(runtime, get("up"), deadline=deadline))
        assert limit is None or len(runtime.faults.active) <= limit
        if number % 2:
            Script(seed + number).run(players.pop(0))
    for player in players:
        Script(seed).run(player)
    assert runtime.faults.active == {}
    assert held(runtime) == {}


# -------------------------------------------------------------------------------------------- the switch, the runtime


def test_the_switch_stops_everything_and_lets_go_on() -> None:
    runtime = of(BOTH)
    waiting = Player(runtime, get("up"))
    runtime.faults.enabled = False
    assert isinstance(Player(runtime, get("up")).last, Start)
    assert isinstance(waiting.send(2.0), Reply)  # what had begun goes on
    runtime.faults.enabled = True
    assert Player(runtime, get("up")).last == Wait(2.0)


@pytest.mark.parametrize("word, enabled", [("", True), ("on", True), ("off", False), (" OFF ", False), ("0", False)])
def test_the_environment_has_the_switch_too(word: str, enabled: bool) -> None:
    assert engine_faults.enabled_by(word) is enabled


def test_a_runtime_that_comes_later_counts_at_once() -> None:
    runtime = of(ABORT)
    assert isinstance(Player(runtime, get("up")).last, Reply)
    off = Struct((("fault.http.abort.abort_percent", 0.0),))
    runtime.install(runtime.compile(snapshot(ABORT, runtime=off), runtime.plan))
    assert isinstance(Player(runtime, get("up")).last, Start)
    runtime.install(runtime.compile(snapshot(ABORT), runtime.plan))
    assert isinstance(Player(runtime, get("up")).last, Reply)


def test_a_filter_that_says_nothing_is_left_out() -> None:
    runtime = of(HttpFault(), on_route=HttpFault())
    (host,) = [runtime.plan.find("http", "up")]
    assert host is not None
    assert host.routes[0].shares[0].filters == ()


# --------------------------------------------------------------------------------------------------------- from code


@pytest.mark.parametrize("service", ["up", "UP", "up.test", "up.test:8080"])
def test_a_fault_from_code(service: str) -> None:
    runtime = of(HttpFault())
    added = runtime.faults.inject(service, Fault(abort=418))
    assert Player(runtime, get("up.test:8080")).last.status == 418
    added.remove()
    added.remove()
    assert isinstance(Player(runtime, get("up.test:8080")).last, Start)


def test_a_fault_from_code_is_for_its_service_and_comes_first() -> None:
    runtime = of(ABORT)
    with runtime.faults.inject("other", Fault(abort=418)):
        assert Player(runtime, get("somebody")).last.status == 503
    with runtime.faults.inject("somebody", Fault(abort=418)), runtime.faults.inject("somebody", Fault(delay=1)):
        assert Player(runtime, get("somebody")).last.status == 418


def test_two_slow_ones_are_as_slow_as_the_slower() -> None:
    runtime = of(SLOW)
    with runtime.faults.inject("up", Fault(limit_kbps=1)):
        player = Player(runtime, get("up"))
    assert player.responds(200, 1.0).info.response_limit == 1024
    assert len(runtime.faults.active) == 2
    player.body_ends(2.0)
    assert runtime.faults.active == {}


# --------------------------------------------------------------------------------------------------------- the audit


def test_the_first_fault_is_told_and_then_few(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "meshlib")
    runtime = of(replace(ABORT, filter_metadata=Struct((("why", "a drill"),))))
    told = events(runtime, FaultInjected)
    for number in range(2 * engine_faults.TELL_EVERY):
        Player(runtime, get("up", f"/{number}"), now=number / 10)
    assert [(event.kind, event.count, event.path) for event in told] == [("abort", 1, "/0"), ("abort", 1001, "/1000")]
    assert {event.name for event in told} == {"envoy.filters.http.fault of out"}
    assert told[0].metadata.get("why") == "a drill"
    assert len(caplog.records) == 2
    assert "1001 so far" in caplog.text


def test_a_storm_of_faults_is_told_of_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    runtime = of(ABORT)
    told = events(runtime, FaultInjected)
    for _ in range(3 * engine_faults.TELL_EVERY):
        Player(runtime, get("up"), now=1.0)
    assert [event.count for event in told] == [1]


def test_a_new_configuration_is_told_of_anew() -> None:
    runtime = of(ABORT)
    told = events(runtime, FaultInjected)
    Player(runtime, get("up"))
    runtime.install(runtime.compile(snapshot(ABORT), runtime.plan))
    Player(runtime, get("up"))
    assert len(told) == 1
    runtime.install(runtime.compile(snapshot(BOTH), runtime.plan))
    Player(runtime, get("up"))
    assert [event.kind for event in told] == ["abort", "delay"]


# ----------------------------------------------------------------------------------------------- many at once, for long


def test_threads_lose_no_count() -> None:
    half = FractionalPercent(50)
    runtime = of(HttpFault(abort=FaultAbort(503, percentage=half), response_rate_limit=FaultRateLimit(1, half)))
    aborted = []

    def calls() -> None:
        mine = 0
        for _ in range(1000):
            player = Player(runtime, get("up"))
            if isinstance(player.last, Reply):
                mine += 1
            else:
                player.responds(200, 1.0)
                player.body_ends(2.0)
        aborted.append(mine)

    threads = [threading.Thread(target=calls) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runtime.faults.stats()["fault.aborts_injected"] == sum(aborted)
    assert 3600 < sum(aborted) < 4400
    assert runtime.faults.active == {}


def test_callers_that_invent_names_fill_no_memory() -> None:
    runtime = of(ABORT)
    for number in range(3000):
        Player(runtime, get("up", "/", (b"x-envoy-downstream-service-cluster", b"caller-%d" % number)))
    stats = runtime.faults.stats()
    assert stats["fault.aborts_injected"] == 3000
    assert stats["fault.caller-0.aborts_injected"] == 1
    assert len(stats) < 1100


def test_calls_of_a_process_that_injects_nothing_run_no_filter() -> None:
    runtime = of(HttpFault())
    (host,) = [runtime.plan.find("http", "up")]
    assert host is not None
    with runtime.faults.inject("up", Fault(abort=503)):
        assert host.routes[0].shares[0].filters == ()  # the configuration is as it was
    assert runtime.faults.added == ()
