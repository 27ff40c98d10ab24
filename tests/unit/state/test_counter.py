"""Counts under threads."""

import sys
import threading

import pytest

from meshlib.state.counter import Counter


@pytest.fixture
def _switching() -> object:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching")
def test_no_count_is_lost_and_none_is_made_up_by_looking() -> None:
    counter, threads = Counter(), []
    assert counter.value == 0

    def work() -> None:
        for number in range(20_000):
            counter.add()
            if number % 1000 == 0:
                assert counter.value > 0

    for _ in range(8):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert counter.value == 160_000
