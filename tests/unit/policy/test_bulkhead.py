"""Bulkheads: never more inside than allowed, never a place lost, nobody waits beside a free place."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshlib.policy.bulkhead import Compartments, Place, Queue, portion
from meshlib.policy.codel import CoDel


def queue(limit: int = 2, waiting: int = 3, target: float = 1e9) -> Queue:
    return Queue(limit, waiting, CoDel(target, 0.1))


def test_each_key_has_its_own_places_and_names_are_forgotten() -> None:
    places = Compartments(2)
    assert [places.enter("a"), places.enter("a"), places.enter("a"), places.enter("b")] == [True, True, False, True]
    assert (places.in_flight("a"), len(places)) == (2, 2)
    for key in ("a", "a", "b"):
        places.leave(key)
    assert len(places) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from([0.3, 0.6, 1.0]))))
def test_a_key_never_holds_more_than_its_limit(steps: list[tuple[str, bool, float]]) -> None:
    places = Compartments(3)
    model = dict.fromkeys("abc", 0)
    for key, enters, share in steps:
        if enters:
            admitted = places.enter(key, share)
            assert admitted == (model[key] < portion(3, share))
            model[key] += admitted
        elif model[key]:
            places.leave(key)
            model[key] -= 1
        assert all(places.in_flight(name) == count <= 3 for name, count in model.items())


def test_whoever_waits_comes_in_by_turn() -> None:
    line = queue(limit=1, waiting=2)
    assert line.enter(0.0) is True
    first, second = line.enter(0.1), line.enter(0.2)
    assert isinstance(first, Place)
    assert isinstance(second, Place)
    assert line.enter(0.3) is False
    line.exit(0.4)
    assert (first.admitted, second.admitted, line.in_flight, line.waiting) == (True, None, 1, 1)
    assert line.leave(first)
    assert not line.leave(second)  # gave up
    line.exit(0.5)
    assert (line.in_flight, line.waiting) == (0, 0)


def test_a_place_that_is_woken_may_look_before_or_after() -> None:
    line = queue(limit=1)
    line.enter(0.0)
    place = line.enter(0.0)
    assert isinstance(place, Place)
    woken: list[bool | None] = []
    place.wake = lambda: woken.append(place.admitted)
    line.exit(1.0)
    assert woken == [True]


def test_a_low_share_waits_while_others_pass() -> None:
    line = queue(limit=4, waiting=4)
    assert line.enter(0.0, 0.5) is True
    assert line.enter(0.0, 0.5) is True
    low = line.enter(0.0, 0.5)
    assert isinstance(low, Place)
    assert line.enter(0.0) is True
    assert line.enter(0.0) is True
    high = line.enter(0.0)
    assert isinstance(high, Place)
    line.exit(1.0)
    assert (low.admitted, high.admitted) == (None, True)
    for _ in range(3):
        line.exit(1.0)
    assert (low.admitted, line.in_flight) == (True, 2)


def test_codel_refuses_whoever_waited_long_in_a_queue_that_stands() -> None:
    line = Queue(1, 100, CoDel(0.005, 0.1))
    line.enter(0.0)
    places = [place for number in range(60) if isinstance(place := line.enter(number * 0.01), Place)]
    line.exit(0.5)  # the first window: the shortest wait is 0.5 s
    line.exit(0.7)  # a later one: the queue stood
    assert [places[0].admitted, places[1].admitted] == [True, False]
    assert not any(place.admitted for place in places[1:])  # all of them waited for more than twice the target
    assert (line.in_flight, line.waiting) == (0, 0)


@pytest.mark.parametrize("waits", [[0.001] * 50, [0.5, 0.5, 0.5, 0.0] * 10])
def test_codel_drops_nothing_while_somebody_is_quick(waits: list[float]) -> None:
    codel = CoDel(0.005, 0.1)
    assert not any(codel.drops(wait, number * 0.02) for number, wait in enumerate(waits))


def test_codel_drops_the_slow_until_an_interval_was_quick() -> None:
    codel = CoDel(0.005, 0.1)
    assert [codel.drops(0.05, 0.0), codel.drops(0.05, 0.09), codel.drops(0.05, 0.1)] == [False, False, True]
    assert [codel.drops(0.009, 0.11), codel.drops(0.011, 0.12)] == [False, True]
    assert codel.drops(0.001, 0.13) is False
    assert codel.drops(0.05, 0.25) is False  # that interval had a quick one


def test_codel_forgets_what_was_long_ago() -> None:
    codel = CoDel(0.005, 0.1)
    codel.drops(0.05, 0.0)
    assert codel.drops(0.05, 10.0) is False


class Machine(RuleBasedStateMachine):
    """Requests come, wait, give up, time out and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3
        self.line = Queue(self.limit, 4, CoDel(0.05, 0.1))
        self.now = 0.0
        self.inside = 0
        self.places: list[Place] = []

    @rule(step=st.floats(0, 0.2))
    def passes(self, step: float) -> None:
        self.now += step

    @rule(share=st.sampled_from([0.3, 0.7, 1.0]))
    def comes(self, share: float) -> None:
        found = self.line.enter(self.now, share)
        if found is True:
            self.inside += 1
        elif isinstance(found, Place):
            self.places.append(found)

    @precondition(lambda self: self.places)
    @rule(data=st.data(), gives_up=st.booleans())
    def looks(self, data: Any, gives_up: bool) -> None:
        place = data.draw(st.sampled_from(self.places))
        if place.admitted is None and not gives_up:
            return
        self.places.remove(place)
        if self.line.leave(place):
            if gives_up:
                self.line.exit()
            else:
                self.inside += 1

    @precondition(lambda self: self.inside)
    @rule()
    def ends(self) -> None:
        self.inside -= 1
        self.line.exit(self.now)

    @invariant()
    def counts_agree(self) -> None:
        admitted = sum(place.admitted is True for place in self.places)
        waiting = [place for place in self.places if place.admitted is None]
        assert self.line.in_flight == self.inside + admitted <= self.limit
        assert self.line.waiting == len(waiting) <= 4
        assert not any(self.line.in_flight < place.limit for place in waiting), "waits beside a free place"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


def test_eight_threads_wait_their_turn_and_lose_no_place() -> None:
    line = queue(limit=3, waiting=8)
    served: list[int] = []

    def run() -> None:
        for _ in range(1000):
            found = line.enter(0.0)
            if isinstance(found, Place):
                woken = threading.Event()
                found.wake = woken.set
                if found.admitted is None:
                    assert woken.wait(20)
                assert line.leave(found)
            assert found is not False
            served.append(line.in_flight)
            line.exit(0.0)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(served) == 8000
    assert max(served) <= 3
    assert (line.in_flight, line.waiting) == (0, 0)
