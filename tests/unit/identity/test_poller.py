"""The thread that looks at files: it begins when wanted, ends when nobody is left, and outlives what it looks at."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from meshlib.identity.poller import Poller


class Looked:
    """Something to look at; `seen` is set by the second look."""

    def __init__(self, on_poll: Callable[[], None] = lambda: None) -> None:
        self.refresh_interval = 0.0001
        self.seen = threading.Event()
        self._polls = 0
        self._on_poll = on_poll

    def poll(self) -> None:
        self._polls += 1
        if self._polls > 1:
            self.seen.set()
        self._on_poll()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "meshlib-identity"]


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_what_vanishes_takes_nothing_along() -> None:
    poller = Poller()
    for _ in range(3000):
        poller.add(Looked())
    last = Looked()
    assert poller.add(last)
    assert not poller.add(last)
    assert last.seen.wait(10)


def test_a_look_that_fails_is_told_and_repeated(caplog: object) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    poller, looked = Poller(), Looked(fail)
    poller.add(looked)
    assert looked.seen.wait(10)
    poller.remove(looked)
    assert "failed" in caplog.text  # type: ignore[attr-defined]


def test_the_thread_ends_with_the_last_and_begins_anew() -> None:
    poller, before = Poller(), set(threads())
    for _ in range(3):
        looked = Looked()
        poller.add(looked)
        assert looked.seen.wait(10)
        (thread,) = set(threads()) - before
        poller.remove(looked)
        del looked
        thread.join(10)
        assert not thread.is_alive()
