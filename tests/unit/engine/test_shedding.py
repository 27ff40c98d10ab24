"""Load shedding as filters: what is refused, with which words, and what they learn from the ends of requests."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshlib.engine.commands import Fail, Reply, Start
from meshlib.engine.ends import Admit, End
from meshlib.engine.filters import LocalReply
from meshlib.engine.pauses import Consult
from meshlib.engine.shedding import (
    AdaptiveConcurrencyFilter,
    AdmissionControlFilter,
    BulkheadFilter,
    QueueDeadlineFilter,
    WaitingBulkheadFilter,
    server_shedder,
    unix_seconds,
)
from meshlib.flags import ResponseFlag
from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.shedding import (
    AdaptiveConcurrency,
    AdmissionControl,
    Bulkhead,
    Priorities,
    QueueDeadline,
    shedding,
)
from meshlib.model.snapshot import Snapshot
from meshlib.policy.bulkhead import Place
from meshlib.policy.priorities import Criticality, below
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, Dice, Player, get, runtime_of

WALL = 1_700_000_000.0


def made(config: Any, wall: float = WALL) -> Any:
    """The filter of a server. Places are waited for by hand."""
    return server_shedder(config, wait=lambda place, seconds: (place, seconds), wall=lambda: wall)  # type: ignore[arg-type, return-value]


def head(path: str = "/", peer: str = "", **headers: str) -> RequestHead:
    found = RequestHead(
        "GET",
        "http",
        "me",
        path,
        [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    )
    found.peer = peer
    return found


def ended(verdict: Any, at: float = 1.0, status: int | None = 200, *, whole: bool = True) -> None:
    assert isinstance(verdict, Admit)
    verdict.on_end(End(at, status, whole=whole))


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (Bulkhead(1, retry_after=2.0), "bulkhead"),
        (Bulkhead(1, retry_after=2.0, name="reports"), "reports"),
        (AdaptiveConcurrency(min_concurrency=1, retry_after=2.4), "adaptive_concurrency"),
    ],
)
def test_a_servers_refusal_says_that_it_is_overloaded_and_when_to_come_back(config: Any, name: str) -> None:
    shedder = made(config)
    assert isinstance(shedder.on_request(head(), 0.0, Dice()), Admit)
    reply = shedder.on_request(head(), 0.0, Dice())
    assert isinstance(reply, LocalReply)
    assert (reply.status, reply.flag, reply.name) == (503, ResponseFlag.UO, name)
    assert reply.headers == [(b"x-envoy-overloaded", b"true"), (b"retry-after", b"2")]
    assert shedder.stats()["rq_blocked"] == 1


def test_the_status_can_be_said_and_nothing_is_said_of_later_by_default() -> None:
    shedder = made(Bulkhead(1, status=429))
    shedder.on_request(head(), 0.0, Dice())
    reply = shedder.on_request(head(), 0.0, Dice())
    assert (reply.status, reply.headers) == (429, [(b"x-envoy-overloaded", b"true")])


@pytest.mark.parametrize("config", [AdaptiveConcurrency(enabled=False), AdmissionControl(enabled=False)])
def test_what_is_switched_off_is_left_out(config: Any) -> None:
    assert made(config) is None


# ------------------------------------------------------------------------------------------------------- bulkheads


def test_a_bulkhead_counts_what_is_inside() -> None:
    shedder = made(Bulkhead(2))
    assert isinstance(shedder, BulkheadFilter)
    first = shedder.on_request(head(), 0.0, Dice())
    second = shedder.on_request(head(), 0.0, Dice())
    assert isinstance(shedder.on_request(head(), 0.0, Dice()), LocalReply)
    ended(first, status=None, whole=False)
    assert isinstance(shedder.on_request(head(), 0.0, Dice()), Admit)
    ended(second)
    ended(second)
    assert shedder.stats() == {"rq_blocked": 1, "rq_active": 0}


def test_a_bulkhead_of_a_path_leaves_others_alone() -> None:
    shedder = made(Bulkhead(1, "/reports"))
    assert isinstance(shedder.on_request(head("/reports/7?a=1"), 0.0, Dice()), Admit)
    assert isinstance(shedder.on_request(head("/reports"), 0.0, Dice()), LocalReply)
    assert shedder.on_request(head("/reportsheet"), 0.0, Dice()) is None
    assert shedder.on_request(head("/"), 0.0, Dice()) is None


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        ("caller", head(peer="spiffe://a/one"), head(peer="spiffe://a/two")),
        ("header:X-Tenant", head(x_tenant="one"), head(x_tenant="two")),
    ],
)
def test_a_bulkhead_by_key_holds_each_to_its_own(by: str, one: RequestHead, other: RequestHead) -> None:
    shedder = made(Bulkhead(1, by=by))
    verdicts = [shedder.on_request(each, 0.0, Dice()) for each in (one, one, other, head(), head())]
    assert [type(verdict) for verdict in verdicts] == [Admit, LocalReply, Admit, Admit, LocalReply]
    for verdict in verdicts:
        if isinstance(verdict, Admit):
            ended(verdict)
    assert len(shedder.compartments) == 0


def waiting(shedder: Any, now: float = 0.0) -> tuple[Consult, Place]:
    verdict = shedder.on_request(head(), now, Dice())
    assert isinstance(verdict, Consult)
    place: Place = verdict.question[0]  # type: ignore[index]
    return verdict, place


def test_a_bulkhead_with_a_queue_lets_the_next_in() -> None:
    shedder = made(Bulkhead(1, max_waiting=1, max_wait=0.7))
    assert isinstance(shedder, WaitingBulkheadFilter)
    first = shedder.on_request(head(), 0.0, Dice())
    pause, place = waiting(shedder)
    assert pause.question[1] == 0.7  # type: ignore[index]
    assert isinstance(shedder.on_request(head(), 0.0, Dice()), LocalReply)
    ended(first, 0.1)
    assert place.admitted
    ended(pause.then(None, 0.1), 0.2)
    assert shedder.stats() == {"rq_blocked": 1, "rq_active": 0, "rq_pending": 0}


def test_whoever_waited_in_vain_is_refused() -> None:
    shedder = made(Bulkhead(1, max_waiting=1))
    first = shedder.on_request(head(), 0.0, Dice())
    pause, _ = waiting(shedder)
    assert isinstance(pause.then(None, 1.0), LocalReply)
    ended(first, 2.0)
    assert shedder.stats() == {"rq_blocked": 1, "rq_active": 0, "rq_pending": 0}


@pytest.mark.parametrize("admitted", [False, True])
def test_whoever_goes_away_gives_its_place_back(admitted: bool) -> None:
    shedder = made(Bulkhead(1, max_waiting=2))
    first = shedder.on_request(head(), 0.0, Dice())
    pause, _ = waiting(shedder)
    after, behind = waiting(shedder)
    if admitted:
        ended(first, 0.1)
    pause.give_up()
    if not admitted:
        ended(first, 0.1)
    assert behind.admitted
    ended(after.then(None, 0.2), 0.3)
    assert shedder.stats() == {"rq_blocked": 0, "rq_active": 0, "rq_pending": 0}


# ------------------------------------------------------------------------------------------------------ priorities


@pytest.mark.parametrize(
    ("request_head", "share"),
    [
        (head(), 0.9),
        (head(x_criticality="critical"), 1.0),
        (head(x_criticality=" Sheddable "), 0.6),
        (head(x_criticality="urgent"), 0.9),
        (head("/batch/1"), 0.6),
        (head("/batch/1", x_criticality="critical"), 1.0),
        (head(peer="spiffe://a/pay"), 1.0),
        (head("/batch", peer="spiffe://a/pay"), 0.6),
    ],
)
def test_criticality_is_said_by_header_then_path_then_caller(request_head: RequestHead, share: float) -> None:
    told = Priorities(paths=(("/batch", "sheddable"),), callers=(("spiffe://a/pay", "critical"),))
    assert Criticality(told).share(request_head) == share


@pytest.mark.parametrize("config", [Bulkhead(10), Bulkhead(10, max_waiting=5), AdaptiveConcurrency(min_concurrency=10)])
def test_the_less_critical_are_shed_first(config: Any) -> None:
    from dataclasses import replace

    shedder = made(replace(config, priorities=Priorities()))

    def admitted(word: str) -> int:
        return sum(isinstance(shedder.on_request(head(x_criticality=word), 0.0, Dice()), Admit) for _ in range(12))

    assert [admitted("sheddable"), admitted("default"), admitted("critical")] == [6, 3, 1]


@pytest.mark.parametrize(
    "wrong", [{"shares": (("a", 1.1),), "default": "a"}, {"default": "b"}, {"paths": (("/", "z"),)}]
)
def test_priorities_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"share"):
        Priorities(**wrong)


@pytest.mark.parametrize(
    ("path", "prefix", "inside"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a/b", "/a/", True), ("/", "/a", False)],
)
def test_a_prefix_ends_at_a_segment(path: str, prefix: str, inside: bool) -> None:
    assert below(path, prefix) == inside


# --------------------------------------------------------------------------------------------------- queue deadline


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", WALL),
        ("1700000000.25", WALL + 0.25),
        ("t=1700000000.25", WALL + 0.25),
        ("1700000000250", WALL + 0.25),
        ("t=1700000000250000", WALL + 0.25),
        ("1700000000250000000", WALL + 0.25),
        ("", None),
        ("yesterday", None),
        ("-5", None),
        ("12", None),
        ("1.7.0", None),
        ("²", None),
    ],
)
def test_a_moment_is_read_as_proxies_write_it(text: str, seconds: float | None) -> None:
    assert unix_seconds(text) == (seconds if seconds is None else pytest.approx(seconds, abs=1e-6))


def test_requests_that_waited_too_long_are_refused() -> None:
    shedder = made(QueueDeadline(target=0.02, interval=0.1, max_wait=1.0))
    assert isinstance(shedder, QueueDeadlineFilter)

    def waited(seconds: float, now: float) -> bool:
        return shedder.on_request(head(x_request_start=f"t={WALL - seconds:.6f}"), now, Dice()) is not None

    assert not waited(0.5, 0.0)
    assert waited(1.5, 0.01)  # nobody waits for it any more
    assert waited(0.05, 0.11)  # the queue stood for an interval: now 0.05 is too long
    assert not waited(0.03, 0.12)
    assert not waited(-1.0, 0.13)  # a clock that is ahead
    assert shedder.on_request(head(), 0.14, Dice()) is None
    assert not waited(0.3, 0.5)  # nothing was in the queue for long
    assert shedder.stats() == {"rq_blocked": 2}


# ---------------------------------------------------------------------------------------- what is learned from ends


def test_adaptive_concurrency_measures_only_what_came_to_its_end() -> None:
    shedder = made(AdaptiveConcurrency(request_count=2))
    assert isinstance(shedder, AdaptiveConcurrencyFilter)
    verdicts = [shedder.on_request(head(), 0.0, Dice()) for _ in range(3)]
    ended(verdicts[0], 0.5, whole=False)
    ended(verdicts[1], 0.1)
    assert shedder.controller.measuring
    ended(verdicts[2], 0.3, 500)
    assert shedder.controller.min_rtt == pytest.approx(0.2)
    assert shedder.stats()["rq_active"] == 0


def test_admission_control_counts_statuses_and_not_callers_that_leave() -> None:
    shedder = made(AdmissionControl())
    assert isinstance(shedder, AdmissionControlFilter)
    for status, whole in ((200, True), (503, True), (None, False), (500, False)):
        ended(shedder.on_request(head(), 0.0, Dice(0.99)), 0.1, status, whole=whole)
    assert shedder.stats() == {"rq_rejected": 0, "rq_success": 1, "rq_failure": 2}


# --------------------------------------------------------------------------------------------------------- notation


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("adaptive", AdaptiveConcurrency()),
        ("admission", AdmissionControl()),
        ("queue", QueueDeadline()),
        ("bulkhead 100", Bulkhead(100)),
        (" bulkhead  5 /reports ", Bulkhead(5, "/reports")),
    ],
)
def test_settings_write_it_as_text(text: str, config: Any) -> None:
    assert shedding(text) == config


@pytest.mark.parametrize(
    "text", ["", "none", "bulkhead", "bulkhead x", "bulkhead 5 reports", "bulkhead 5 /a b", "adaptive 5"]
)
def test_other_text_is_refused_and_shown_how(text: str) -> None:
    with pytest.raises(ValueError, match="write 'adaptive'"):
        shedding(text)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Bulkhead(0),
        lambda: Bulkhead(1, by="mood"),
        lambda: Bulkhead(1, by="caller", max_waiting=1),
        lambda: AdaptiveConcurrency(min_concurrency=0),
        lambda: AdmissionControl(sampling_window=0.0),
        lambda: QueueDeadline(target=float("nan")),
    ],
)
def test_policies_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"by|more than 0|max_waiting"):
        wrong()


# ------------------------------------------------------------------------------------------------------------ calls


def calling(config: Any) -> Any:
    """A runtime whose route has the filter."""
    entries = (HttpFilter("shed", config), HttpFilter("router", RouterFilter()))
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"))
    manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),)), entries)
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    snapshot = Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)})
    return runtime_of(snapshot, rng=random.Random(5))


def test_calls_over_the_adaptive_limit_are_answered() -> None:
    runtime = calling(AdaptiveConcurrency())
    players = [Player(runtime, get("up")) for _ in range(4)]
    assert [type(player.last) for player in players] == [Start, Start, Start, Reply]
    reply = players[3].last
    assert (reply.status, reply.body, reply.headers) == (
        503,
        b"reached concurrency limit",
        [(b"content-type", b"text/plain")],
    )
    assert reply.info.flag is ResponseFlag.UO
    players[0].responds(200, 1.0)
    assert isinstance(Player(runtime, get("up")).last, Reply)  # the body has not ended
    players[0].body_ends(1.5)
    assert isinstance(Player(runtime, get("up")).last, Start)
    players[1].close()
    assert isinstance(Player(runtime, get("up")).last, Start)


def test_calls_are_refused_by_admission_control_once_they_fail() -> None:
    runtime = calling(AdmissionControl())
    outcomes: list[str] = []
    for _ in range(400):
        player = Player(runtime, get("up"))
        if isinstance(player.last, Start):
            assert isinstance(player.fails(Failure.CONNECT, 0.0), Fail)
        outcomes.append(type(player.last).__name__)
    assert outcomes[:1] == ["Fail"]
    assert 0.72 < outcomes[100:].count("Reply") / 300 < 0.88
