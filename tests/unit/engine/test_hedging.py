"""Overlapping attempts: a slow one goes on at the per-try timeout, the first good response is the call's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import BodyEnd, Cancel, Commit, Discard, Fail, Launch, Listen, Start
from meshlib.flags import ResponseFlag
from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.retry import RetryPolicy
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ADDRESSES, ENDED, Dice, Player, at_time, get, held, limited_cluster, runtime_of

RETRY = RetryPolicy(("5xx",), num_retries=2, per_try_timeout=1.0)


def hedged(clusters: Any = None, retries: RetryPolicy = RETRY, **options: Any) -> Snapshot:
    """Three endpoints behind a route that hedges."""
    snapshot = static_snapshot(clusters or {"payments": ADDRESSES}, retries=retries, timeout=10.0, **options)
    routes = {
        name: replace(
            table, virtual_hosts=tuple(replace(host, hedge_on_per_try_timeout=True) for host in table.virtual_hosts)
        )
        for name, table in snapshot.routes.items()
    }
    return replace(snapshot, routes=routes)


class Hedged(Player):
    """A call that hedges, answered by attempt."""

    def __init__(self, *headers: tuple[bytes, bytes], snapshot: Snapshot | None = None, **options: Any) -> None:
        self.runtime = runtime_of(snapshot or hedged(), rng=Dice(0.0))
        self.attempts: list[Start] = []
        super().__init__(self.runtime, get("payments", "/", *headers), **options)
        self.begins(0.0)

    def begins(self, at: float) -> None:
        """The attempts that are due now are under way; the flow listens, or does something else."""
        while isinstance(self.last, Launch):
            self.attempts.append(self.last.start)
            self.send(at)

    def slow(self, at: float) -> Any:
        """Nothing has ended until now."""
        assert isinstance(self.last, Listen)
        self.send(at)
        self.begins(at)
        return self.last

    def ends(self, number: int, outcome: Outcome, at: float) -> Any:
        """Attempt `number` ended; what else the flow wants until it listens again or is done."""
        assert isinstance(self.last, Listen)
        self.send((self.attempts[number - 1], at_time(outcome, at)))
        while isinstance(self.last, Cancel | Discard):
            self.send(at)
        self.begins(at)
        return self.last

    @property
    def cancelled(self) -> list[int]:
        return [command.start.attempt for command in self.commands if isinstance(command, Cancel)]

    def stat(self, name: str) -> int:
        return self.runtime.state.cluster("payments").stats[name].value


def test_a_quick_answer_is_one_attempt() -> None:
    call = Hedged()
    assert isinstance(call.last, Listen)
    assert call.last.until == 1.0
    assert isinstance(call.ends(1, Outcome(200), 0.5), Commit)
    assert call.send(BodyEnd(0.6)) == ENDED
    assert call.kinds == ["Launch", "Listen", "Commit"]
    assert held(call.runtime) == {}


def test_a_slow_attempt_goes_on_and_the_first_good_response_wins() -> None:
    call = Hedged()
    assert call.slow(1.0).until == 2.0
    assert [start.attempt for start in call.attempts] == [1, 2]
    assert [start.deadline for start in call.attempts] == [10.0, 10.0]
    commit = call.ends(2, Outcome(200), 1.2)
    assert isinstance(commit, Commit)
    assert call.cancelled == [1]
    assert (commit.info.attempts, commit.info.endpoint, commit.info.flag) == (2, call.attempts[1].host.address, None)
    assert len(call.runtime.state.cluster("payments").default.requests) == 1
    assert call.send(BodyEnd(1.3)) == ENDED
    assert held(call.runtime) == {}
    assert call.stat("upstream_rq_per_try_timeout") == 1
    assert call.stat("upstream_rq_retry") == 1
    assert call.stat("upstream_rq_tx_reset") == 1


def test_the_slow_one_may_win_after_all() -> None:
    call = Hedged()
    call.slow(1.0)
    commit = call.ends(1, Outcome(200), 1.5)
    assert isinstance(commit, Commit)
    assert call.cancelled == [2]
    assert commit.info.attempts == 1


def test_a_bad_response_waits_for_the_others() -> None:
    call = Hedged(snapshot=hedged(retries=replace(RETRY, num_retries=1)))
    call.slow(1.0)
    assert isinstance(call.ends(1, Outcome(503), 1.5), Listen)
    assert "Discard" in call.kinds
    commit = call.ends(2, Outcome(200), 1.7)
    assert isinstance(commit, Commit)
    assert (commit.outcome.status, commit.info.flag) == (200, None)


def test_when_all_are_bad_the_last_is_the_answer() -> None:
    call = Hedged(snapshot=hedged(retries=replace(RETRY, num_retries=1)))
    call.slow(1.0)
    call.ends(1, Outcome(503), 1.5)
    commit = call.ends(2, Outcome(500), 1.7)
    assert isinstance(commit, Commit)
    assert (commit.outcome.status, commit.info.flag) == (500, ResponseFlag.URX)


def test_a_bad_response_of_an_attempt_that_was_not_slow_is_retried() -> None:
    call = Hedged()
    call.slow(1.0)
    assert isinstance(call.ends(2, Outcome(503), 1.2), Listen)
    assert [start.attempt for start in call.attempts] == [1, 2, 3]
    assert isinstance(call.ends(3, Outcome(200), 1.3), Commit)
    assert call.cancelled == [1]


def test_no_more_attempts_than_the_policy_allows() -> None:
    call = Hedged()
    for at in (1.0, 2.0, 3.0):
        call.slow(at)
    assert len(call.attempts) == 3
    commit = call.ends(1, Outcome(200), 3.5)
    assert isinstance(commit, Commit)
    assert call.cancelled == [2, 3]
    assert (commit.info.flag, commit.info.why_not_retried) == (None, "")
    assert call.stat("upstream_rq_retry_limit_exceeded") == 1


def test_failures_are_the_answer_when_nobody_is_left() -> None:
    call = Hedged(snapshot=hedged(retries=replace(RETRY, retry_on=("retriable-4xx",), num_retries=1)))
    call.slow(1.0)
    assert isinstance(call.ends(2, Outcome(failure=Failure.RESET), 1.2), Listen)
    fail = call.ends(1, Outcome(failure=Failure.RESET), 1.4)
    assert isinstance(fail, Fail)
    assert fail.failure.flag is ResponseFlag.UC


def test_what_cannot_be_sent_again_is_not_hedged_and_not_cut_off() -> None:
    call = Hedged(replayable=False)
    assert isinstance(call.slow(1.0), Listen)
    assert len(call.attempts) == 1
    assert isinstance(call.ends(1, Outcome(200), 5.0), Commit)


def test_the_calls_own_time_ends_all_of_them() -> None:
    call = Hedged()
    call.slow(1.0)
    call.send(10.0)
    while isinstance(call.last, Cancel):
        call.send(10.0)
    assert isinstance(call.last, Fail)
    assert call.last.failure.flag is ResponseFlag.UT
    assert call.cancelled == [1, 2]
    assert call.send(None) == ENDED
    assert held(call.runtime) == {}


def test_thresholds_hold_for_hedges_too() -> None:
    cluster = limited_cluster(limits={"max_requests": 1})
    call = Hedged(snapshot=hedged({"payments": cluster}))
    assert isinstance(call.slow(1.0), Listen)
    assert len(call.attempts) == 1
    assert call.stat("upstream_rq_active_overflow") == 1
    assert isinstance(call.ends(1, Outcome(200), 1.5), Commit)


def test_without_a_budget_there_is_no_hedge() -> None:
    cluster = limited_cluster(limits={"max_retries": 0})
    call = Hedged(snapshot=hedged({"payments": cluster}))
    call.slow(1.0)
    assert len(call.attempts) == 1
    assert call.stat("upstream_rq_retry_overflow") == 1


def test_slowness_counts_for_outlier_detection_though_the_attempt_goes_on() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    cluster = static_cluster("payments", ADDRESSES, outlier_detection=detection)
    call = Hedged(snapshot=hedged({"payments": cluster}))
    call.slow(1.0)
    assert call.attempts[0].host.cell.ejected
    assert call.attempts[1].host is not call.attempts[0].host


@pytest.mark.parametrize("ended", [False, True])
def test_of_one_time_out_it_hears_once(ended: bool) -> None:
    detection = OutlierDetection(consecutive_5xx=2 if ended else 3, max_ejection_percent=100)
    cluster = static_cluster("payments", ADDRESSES[:1], outlier_detection=detection)
    call = Hedged(snapshot=hedged({"payments": cluster}))
    call.slow(1.0)
    if ended:
        call.ends(1, Outcome(failure=Failure.TIMEOUT), 10.0)
    else:
        call.send(10.0)  # of two attempts one has been slow and was told
    assert isinstance(call.last, Cancel | Fail)
    assert not call.attempts[0].host.cell.ejected
    assert call.runtime.state.cluster("payments").streaks[call.attempts[0].host.cell]


def test_closing_gives_everything_back() -> None:
    call = Hedged()
    call.slow(1.0)
    call.close()
    assert held(call.runtime) == {}


def test_a_request_may_ask_for_it_and_against_it() -> None:
    plain = static_snapshot({"payments": ADDRESSES}, retries=RETRY)
    header = b"x-envoy-hedge-on-per-try-timeout"
    assert Hedged((header, b"true"), snapshot=plain).kinds[0] == "Launch"
    assert Hedged((header, b"false")).kinds == ["Start"]
    assert Hedged(snapshot=plain).kinds == ["Start"]
