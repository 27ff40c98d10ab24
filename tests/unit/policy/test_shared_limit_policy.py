"""SharedRateLimit without a network: the memory store, what it is given, and what it does when the store fails."""

import logging
from collections.abc import Iterator

import pytest

from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.policy import shared_limit
from meshlib.policy.limit_store import StoreUnavailableError
from meshlib.policy.shared_limit import SharedRateLimit

NOWHERE = "redis://127.0.0.1:1"  # nothing listens on port 1: refused at once


@pytest.fixture
def memory() -> Iterator[SharedRateLimit]:
    limit = SharedRateLimit("3/minute", "memory://", key="%REQ(x-user)%", name="per user")
    yield limit
    limit.close()


def test_hits_are_counted_by_key_and_carry_their_figures(memory: SharedRateLimit) -> None:
    verdicts = [memory.hit("ada") for _ in range(4)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False]
    assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0]
    assert [verdict.flag for verdict in verdicts] == [None, None, None, ResponseFlag.RL]
    assert all(verdict.limit == 3 and verdict.source == "store" for verdict in verdicts)
    assert verdicts[0].reset is not None
    assert 0 < verdicts[0].reset <= 60
    assert memory.hit("grace").allowed


async def test_the_same_on_an_event_loop() -> None:
    limit = SharedRateLimit("2/minute", "memory://")
    assert [(await limit.ahit()).allowed for _ in range(3)] == [True, True, False]
    await limit.aclose()


def test_a_question_hits_the_key_of_its_request(memory: SharedRateLimit) -> None:
    head = RequestHead("GET", "http", "payments", "/", [(b"x-user", b"ada")])
    assert [memory.question(head).ask().allowed for _ in range(4)] == [True, True, True, False]
    anonymous = RequestHead("GET", "http", "payments", "/")
    assert memory.question(anonymous).ask().allowed


async def test_a_question_asks_the_store_for_no_figures(memory: SharedRateLimit) -> None:
    question = memory.question(RequestHead("GET", "http", "payments", "/"))
    for verdict in (question.ask(), await question.aask()):
        assert (verdict.allowed, verdict.remaining, verdict.reset) == (True, None, None)
    await memory.aclose()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"limit": "lots"}, "lots"),
        ({"strategy": "token"}, "strategy"),
        ({"on_error": "panic"}, "on_error"),
        ({"timeout": 0}, "timeout"),
        ({"local_fraction": 0}, "local_fraction"),
        ({"key": "%DURATION%"}, "REQ"),
    ],
)
def test_mistakes_are_found_when_it_is_made(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharedRateLimit(**{"limit": "1/second", "storage": "memory://", **options})  # type: ignore[arg-type]


def test_local_fallback_gives_this_process_its_share() -> None:
    limit = SharedRateLimit("10/hour", NOWHERE, local_fraction=0.3)
    verdicts = [limit.hit("ada") for _ in range(5)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False, False]
    assert {verdict.source for verdict in verdicts} == {"local"}
    assert verdicts[-1].flag is ResponseFlag.RL
    assert verdicts[-1].reset == pytest.approx(1200, abs=5)
    assert limit.hit("grace").allowed


def test_open_lets_everything_through() -> None:
    limit = SharedRateLimit("1/hour", NOWHERE, on_error="open")
    verdicts = [limit.hit() for _ in range(5)]
    assert all(verdict.allowed and verdict.source == "open" for verdict in verdicts)


def test_closed_refuses_everything_and_says_that_it_was_the_store() -> None:
    limit = SharedRateLimit("100/hour", NOWHERE, on_error="closed")
    verdicts = [limit.hit() for _ in range(5)]
    assert all(not verdict.allowed and verdict.source == "closed" for verdict in verdicts)
    assert {verdict.flag for verdict in verdicts} == {ResponseFlag.RLSE}


async def test_the_policy_is_the_same_on_an_event_loop() -> None:
    limit = SharedRateLimit("2/hour", NOWHERE)
    verdicts = [await limit.ahit() for _ in range(5)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, False, False, False]
    await limit.aclose()


def test_a_store_that_is_gone_is_asked_three_times_and_then_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit = SharedRateLimit("1000/hour", NOWHERE, name="per user")
    asked = 0
    hit = limit._store.hit

    def count(*key: str, figures: bool) -> tuple[bool, int | None, float | None]:
        nonlocal asked
        asked += 1
        return hit(*key, figures=figures)

    monkeypatch.setattr(limit._store, "hit", count)
    with caplog.at_level(logging.INFO, "meshlib.shared_limit"):
        for _ in range(50):
            limit.hit()
    assert asked == 3
    assert len(caplog.records) == 1
    assert "per user" in caplog.text
    assert "on_error=local" in caplog.text


def test_local_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_limit, "MAX_LOCAL_KEYS", 10)
    limit = SharedRateLimit("1/hour", NOWHERE)
    for number in range(1000):
        limit.hit(f"user-{number}")
    assert len(limit._here().local) <= 10


def test_a_forked_child_starts_with_a_closed_circuit_and_full_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = SharedRateLimit("4/hour", NOWHERE)
    assert [limit.hit().allowed for _ in range(5)] == [True] * 4 + [False]
    assert limit._here().circuit.current_state == "open"
    monkeypatch.setattr(shared_limit.os, "getpid", lambda: -1)
    assert limit._here().circuit.current_state == "closed"
    assert limit.hit().allowed


def test_a_mistake_that_is_not_the_stores_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = SharedRateLimit("1/hour", "memory://")

    def broken(*key: str, figures: bool) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(limit._store, "hit", broken)
    for _ in range(5):
        with pytest.raises(TypeError, match="a bug"):
            limit.hit()
    monkeypatch.undo()
    assert limit.hit().source == "store"
    limit.close()


def test_the_error_names_the_cause() -> None:
    limit = SharedRateLimit("1/hour", NOWHERE)
    with pytest.raises(StoreUnavailableError, match="refused"):
        limit._store.hit("a")
