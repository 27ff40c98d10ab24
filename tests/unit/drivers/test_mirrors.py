"""Copies under way: how many there may be, on whose time, and how they end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.drivers import mirrors as module
from meshlib.drivers.mirrors import Mirrors
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.route import Route, RouteAction

CURRENT: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="nothing")


class Copy:
    """Runs until it is let go, or cancelled."""

    def __init__(self, run: Callable[[], Any] | None = None) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.cancelled = False
        self._run = run

    def run(self) -> None:
        self.begun.set()
        if self._run is not None:
            self._run()
        else:
            assert self.go.wait(10)

    def cancel(self) -> None:
        self.cancelled = True
        self.go.set()


def threads() -> int:
    return sum(thread.name == "meshlib-mirror" for thread in threading.enumerate())


def until(look: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(2000):
        if look():
            return
        waiting.wait(0.005)
    raise TimeoutError


@pytest.fixture
def made() -> Iterator[Callable[..., Mirrors]]:
    known: list[Mirrors] = []

    def make(**options: Any) -> Mirrors:
        known.append(Mirrors(**options))
        return known[-1]

    yield make
    for mirrors in known:
        mirrors.close()
    until(lambda: threads() == 0)


def test_nothing_is_started_for_nothing(made: Callable[..., Mirrors]) -> None:
    before = threads()
    made()
    assert threads() == before


def test_copies_share_few_threads(made: Callable[..., Mirrors]) -> None:
    before = threads()
    mirrors = made(threads=3)
    copies = [Copy() for _ in range(10)]
    assert all(mirrors.on_thread(copy) for copy in copies)
    for copy in copies[:3]:
        assert copy.begun.wait(10)
    assert (mirrors.under_way, threads() - before) == (10, 3)
    assert not copies[3].begun.is_set()
    for copy in copies:
        copy.go.set()
    until(lambda: mirrors.under_way == 0)
    assert all(copy.begun.is_set() for copy in copies)


def test_one_too_many_is_refused(made: Callable[..., Mirrors]) -> None:
    mirrors = made(most=2)
    copies = [Copy(), Copy(), Copy()]
    assert [mirrors.on_thread(copy) for copy in copies] == [True, True, False]
    copies[0].go.set()
    until(lambda: mirrors.under_way == 1)
    assert mirrors.on_thread(copies[2])


def test_a_copy_runs_in_the_context_of_its_call(made: Callable[..., Mirrors]) -> None:
    seen: list[str] = []
    mirrors = made()
    token = CURRENT.set("the call")
    mirrors.on_thread(Copy(lambda: seen.append(CURRENT.get())))
    CURRENT.reset(token)
    until(lambda: mirrors.under_way == 0)
    assert seen == ["the call"]


def test_a_copy_that_raises_is_said_and_forgotten(
    made: Callable[..., Mirrors], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise LookupError("of the copy")

    mirrors = made(threads=1)
    with caplog.at_level(logging.ERROR, "meshlib"):
        mirrors.on_thread(Copy(broken))
        after = Copy(lambda: None)
        mirrors.on_thread(after)
        until(lambda: mirrors.under_way == 0)
    assert after.begun.is_set(), "its thread goes on"
    assert "of the copy" in caplog.text


def test_closing_cancels_what_runs_and_begins_nothing_more(made: Callable[..., Mirrors]) -> None:
    before = threads()
    mirrors = made(threads=1)
    running, waiting = Copy(), Copy()
    mirrors.on_thread(running)
    mirrors.on_thread(waiting)
    assert running.begun.wait(10)

    class Kept:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    kept = mirrors.shared("kept", Kept)
    assert mirrors.shared("kept", Kept) is kept
    mirrors.close()
    assert running.cancelled
    assert waiting.cancelled
    assert kept.closed == 1
    until(lambda: mirrors.under_way == 0)
    assert not waiting.begun.is_set()
    assert not mirrors.on_thread(Copy())
    until(lambda: threads() <= before)


def test_threads_end_when_there_is_nothing_to_do(made: Callable[..., Mirrors], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.01)
    before = threads()
    mirrors = made()
    mirrors.on_thread(Copy(lambda: None))
    until(lambda: mirrors.under_way == 0 and threads() <= before)
    again = Copy(lambda: None)
    mirrors.on_thread(again)
    assert again.begun.wait(10), "and begin when there is something again"


async def test_a_copy_on_a_loop_is_a_task(made: Callable[..., Mirrors], caplog: pytest.LogCaptureFixture) -> None:
    mirrors = made(most=2)
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def broken() -> None:
        raise LookupError("of the copy")

    assert mirrors.on_loop(forever)
    assert mirrors.on_loop(broken)
    assert not mirrors.on_loop(forever)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert mirrors.under_way == 1
    assert "of the copy" in caplog.text
    await asyncio.to_thread(mirrors.close)
    for _ in range(4):  # the cancellation comes by the loop, and the task's end after it
        await asyncio.sleep(0)
    assert mirrors.under_way == 0
    assert ended == ["cancelled"]
    assert not mirrors.on_loop(forever)


def test_copies_of_a_loop_that_was_closed_are_no_trouble(made: Callable[..., Mirrors]) -> None:
    mirrors = made()

    async def main() -> None:
        assert mirrors.on_loop(asyncio.Event().wait)  # type: ignore[arg-type]  # what it gives is nobody's

    asyncio.run(main())
    assert mirrors.under_way == 0
    mirrors.close()


def test_guarded_functions_are_not_mirrored() -> None:
    """A function is called once; that the route asks for more is said once."""
    action = RouteAction("up", request_mirror_policies=(RequestMirrorPolicy("shadow"),))
    mesh = Mesh.static(
        {"up": ["10.0.0.1:80"], "shadow": ["10.0.0.2:80"]},
        routes={"payments": [Route(RouteMatch(PathMatcher("prefix", "/")), action)]},
    )
    calls: list[int] = []

    @mesh.guard("payments")
    def charge() -> None:
        calls.append(1)

    charge()
    charge()
    assert len(calls) == 2
    assert [(issue.path, issue.reason) for issue in mesh.issues] == [
        ("request_mirror_policies", "calls of guarded functions are not mirrored")
    ]
    assert "mirrors" not in vars(mesh), "nothing was begun"
    mesh.close()
