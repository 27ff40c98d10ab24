"""max_requests, max_pending_requests, max_connections."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.cluster import Thresholds
from meshlib.policy import thresholds
from meshlib.policy.thresholds import Gate
from meshlib.state.cells import PriorityState


def test_as_many_get_in_as_the_limit_says_and_leaving_makes_room() -> None:
    inside: dict[object, None] = {}
    assert [thresholds.admit(inside, 2, token) for token in "abc"] == [True, True, False]
    assert list(inside) == ["a", "b"]
    thresholds.release(inside, "a")
    thresholds.release(inside, "a")
    assert thresholds.admit(inside, 2, "c")


def test_a_limit_of_zero_lets_nobody_in() -> None:
    assert not thresholds.admit({}, 0, "a")


@pytest.mark.parametrize(
    "make,container",
    [
        (thresholds.connection_gate, "connections"),
        (thresholds.pending_gate, "pending"),
        (thresholds.request_gate, "requests"),
    ],
)
def test_each_gate_stands_before_its_own_container(make: object, container: str) -> None:
    state = PriorityState()
    assert callable(make)
    gate: Gate = make(state, Thresholds(max_connections=1, max_pending_requests=1, max_requests=1))
    assert gate.try_acquire("a")
    assert gate.is_open
    assert list(getattr(state, container)) == ["a"]
    assert not gate.try_acquire("b")
    assert (gate.active, gate.overflow.value) == (1, 1)
    gate.release("a")
    assert not gate.is_open


@pytest.mark.usefixtures("hasty_threads")
def test_the_limit_is_never_exceeded_by_eight_threads() -> None:
    gate = Gate({}, 5)
    most = 0

    def work(_: int) -> None:
        nonlocal most
        for _ in range(2000):
            token = object()
            if gate.try_acquire(token):
                admitted[token] = None
                most = max(most, len(admitted))
                del admitted[token]
                gate.release(token)

    admitted: dict[object, None] = {}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert 1 <= most <= 5
    assert gate.active == 0
