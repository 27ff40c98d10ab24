"""What balancers learn from attempts: once each, and from those that say something about the endpoint."""

from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import BodyEnd, Launch, Start
from meshlib.engine.runtime import Runtime
from meshlib.model.lb import ClientSideWeightedRoundRobin, LbPolicy, LeastRequest, PeakEwma, RoundRobin, SlowStart
from meshlib.model.orca import HEADER_BIN, LoadReport
from meshlib.model.outcome import Failure
from meshlib.model.retry import RetryPolicy
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_snapshot
from meshlib.state.latency import Estimate
from parts.flow import Player, runtime_of

REPORT = LoadReport(cpu_utilization=0.5, rps_fractional=100.0)


def with_policy(policy: LbPolicy, *addresses: str, **options: Any) -> Snapshot:
    made = static_snapshot({"payments": addresses or ("10.0.0.1:80", "10.0.0.2:80")}, **options)
    return replace(made, clusters={"payments": replace(made.clusters["payments"], lb_policy=policy)})


def sent(player: Player) -> Start:
    assert isinstance(player.last, Start)
    return player.last


def latency(runtime: Runtime, start: Start) -> Estimate | None:
    found = runtime.state.cluster("payments").endpoint(start.host.address).timing
    return None if found is None else found.estimate


def test_the_time_to_the_response_headers_is_the_latency() -> None:
    runtime = runtime_of(with_policy(PeakEwma()))
    player = Player(runtime, now=10.0)
    start = sent(player)
    player.responds(200, 10.25)
    assert latency(runtime, start) == Estimate(0.25, 10.25)
    player.send(BodyEnd(99.0, Failure.RESET))  # judged once more, but not timed
    assert latency(runtime, start) == Estimate(0.25, 10.25)
    assert not start.host.cell.live


@pytest.mark.parametrize("failure", [Failure.CONNECT, Failure.RESET, Failure.TIMEOUT])
def test_a_failure_counts_as_twice_what_was_known(failure: Failure) -> None:
    runtime = runtime_of(with_policy(PeakEwma()))
    player = Player(runtime, now=0.0)
    start = sent(player)
    player.fails(failure, 0.001)
    assert latency(runtime, start) == Estimate(0.02, 0.001)


@pytest.mark.parametrize("failure", [Failure.LOCAL, Failure.OVERFLOW, Failure.POOL_TIMEOUT])
def test_what_is_not_the_endpoints_doing_is_not_timed(failure: Failure) -> None:
    runtime = runtime_of(with_policy(PeakEwma()))
    player = Player(runtime, now=0.0)
    start = sent(player)
    player.fails(failure, 5.0)
    assert latency(runtime, start) is None


def test_each_attempt_is_timed_for_its_own_endpoint() -> None:
    runtime = runtime_of(with_policy(PeakEwma(), retries=1))
    player = Player(runtime, now=0.0)
    first = sent(player)
    player.fails(Failure.CONNECT, 1.0)
    player.send(1.5)  # the back-off
    second = sent(player)
    player.responds(200, 1.75)
    assert second.host is not first.host
    assert latency(runtime, first) == Estimate(1.0, 1.0)
    assert latency(runtime, second) == Estimate(0.25, 1.75)


def test_reports_of_responses_are_kept() -> None:
    runtime = runtime_of(with_policy(ClientSideWeightedRoundRobin()))
    player = Player(runtime, now=0.0)
    start = sent(player)
    player.responds(200, 3.0, (HEADER_BIN.encode(), REPORT.to_header().encode()))
    assert start.host.cell.reported == (200.0, 3.0, 3.0)


def test_reports_in_responses_do_not_count_where_endpoints_are_asked() -> None:
    runtime = runtime_of(with_policy(ClientSideWeightedRoundRobin(oob_reporting_period=10.0)))
    assert runtime.plan.clusters["payments"].observe is None


@pytest.mark.parametrize("policy", [RoundRobin(), LeastRequest(slow_start=SlowStart(60.0))])
def test_a_balancer_that_learns_nothing_is_told_nothing(policy: LbPolicy) -> None:
    cluster = runtime_of(with_policy(policy)).plan.clusters["payments"]
    assert cluster.observe is None
    assert cluster.take_report is None


def test_what_was_learnt_outlives_a_change_of_the_configuration() -> None:
    runtime = runtime_of(with_policy(PeakEwma()))
    player = Player(runtime, now=0.0)
    start = sent(player)
    player.responds(200, 0.5)
    runtime.install(runtime.compile(with_policy(PeakEwma(), "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"), runtime.plan))
    assert latency(runtime, start) == Estimate(0.5, 0.5)


def test_the_clock_of_slow_start_is_that_of_the_calls() -> None:
    policy = RoundRobin(SlowStart(100.0))
    runtime = runtime_of(with_policy(policy, "10.0.0.1:80"))
    runtime.plan.clusters["payments"].adopt(0.0)
    after = with_policy(policy, "10.0.0.1:80", "10.0.0.2:80")
    runtime.install(runtime.compile(after, runtime.plan), 1_000.0)
    cluster = runtime.plan.clusters["payments"]
    asked = [sent(Player(runtime, now=1_050.0 + number / 10_000)).host.address for number in range(300)]
    assert abs(asked.count("10.0.0.2:80") - 100) <= 2, "half its weight at half of the window"
    assert cluster.next_sweep == 1_051.0


def test_a_hedged_attempt_that_is_slow_is_timed_though_it_is_cancelled() -> None:
    retries = RetryPolicy(("5xx",), num_retries=2, per_try_timeout=1.0)
    made = with_policy(PeakEwma(), retries=retries, timeout=10.0)
    routes = {
        name: replace(
            table, virtual_hosts=tuple(replace(host, hedge_on_per_try_timeout=True) for host in table.virtual_hosts)
        )
        for name, table in made.routes.items()
    }
    runtime = runtime_of(replace(made, routes=routes))
    player = Player(runtime, now=0.0)
    assert isinstance(player.last, Launch)
    slow = player.last.start
    player.send(0.0)
    player.send(1.0)  # nothing has ended at the per-try timeout
    assert latency(runtime, slow) == Estimate(1.0, 1.0)
