"""Drain: what a signal does in each state, with a loop that does only what it is told."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib.http.drain import Drain, install_all


class Loop:
    """Keeps what it is to do; `turn` does what is due at once, `later` holds the rest."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], object]] = []
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        self._soon.append(lambda: callback(*arguments))

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> None:
        self.later.append((delay, lambda: callback(*arguments)))

    def turn(self) -> None:
        while self._soon:
            self._soon.pop(0)()


class Server:
    """A server's own handler, as uvicorn sets one."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def handle_exit(self, number: int, frame: object) -> None:
        self.signals.append(number)


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server()
    before = signal.signal(signal.SIGTERM, own.handle_exit)
    yield own
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def installed(server: Server) -> Iterator[Callable[[float], tuple[Drain, Loop]]]:
    drains: list[Drain] = []

    def install(seconds: float) -> tuple[Drain, Loop]:
        drain, loop = Drain(seconds), Loop()

        async def on_startup() -> None:
            drain.install()

        asyncio.run(on_startup())
        drain._loop = loop  # type: ignore[assignment]
        drains.append(drain)
        return drain, loop

    yield install
    for drain in drains:
        drain.uninstall()


def test_a_signal_begins_and_the_server_gets_it_when_the_time_is_over(installed: Any, server: Server) -> None:
    drain, loop = installed(7.0)
    told: list[bool] = []
    drain.on_drain(lambda: told.append(drain.draining))
    signal.raise_signal(signal.SIGTERM)
    assert (drain.draining, told) == (False, []), "nothing is done inside the signal handler"
    loop.turn()
    assert (drain.draining, told, server.signals) == (True, [True], [])
    ((delay, hand_over),) = loop.later
    assert delay == 7.0
    hand_over()
    assert server.signals == [signal.SIGTERM]


def test_a_second_signal_goes_to_the_server_at_once(installed: Any, server: Server) -> None:
    drain, loop = installed(7.0)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # even before the loop has turned
    assert server.signals == [signal.SIGTERM]
    loop.turn()
    assert drain.draining
    drain.uninstall()  # the server has shut down
    for _, hand_over in loop.later:
        hand_over()
    assert server.signals == [signal.SIGTERM], "a server that has ended is not told again"


def test_no_seconds_hand_the_signal_on_at_once_and_still_tell_the_hooks(installed: Any, server: Server) -> None:
    drain, loop = installed(0.0)
    told: list[str] = []
    drain.on_drain(lambda: told.append("left"))
    signal.raise_signal(signal.SIGTERM)
    assert server.signals == [signal.SIGTERM]
    loop.turn()
    assert (drain.draining, told, loop.later) == (True, ["left"], [])


def test_time_drained_by_hand_counts(installed: Any, server: Server) -> None:
    """As a preStop hook would, before the signal comes."""
    drain, loop = installed(50.0)
    drain.begin()
    signal.raise_signal(signal.SIGTERM)
    loop.turn()
    ((delay, _),) = loop.later
    assert 0 < delay <= 50.0
    assert server.signals == []


def test_a_closed_loop_is_not_waited_for(installed: Any, server: Server) -> None:
    drain, loop = installed(7.0)
    loop.closed = True
    signal.raise_signal(signal.SIGTERM)
    assert (drain.draining, server.signals) == (True, [signal.SIGTERM])


def test_a_hook_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    drain, told = Drain(1.0), []

    def fail() -> None:
        raise OSError("the registry is gone")

    drain.on_drain(fail)
    drain.on_drain(lambda: told.append("second"))
    with caplog.at_level(logging.ERROR, "meshlib.drain"):
        drain.begin()
        drain.begin()
    assert told == ["second"], "each hook once"
    assert "draining goes on" in caplog.text


def test_the_handler_is_given_back(installed: Any, server: Server) -> None:
    drain, _ = installed(1.0)
    drain.install()
    assert signal.getsignal(signal.SIGTERM) == drain._on_signal
    drain.uninstall()
    drain.uninstall()
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


def test_a_handler_set_after_ours_is_left_alone(installed: Any, server: Server) -> None:
    drain, _ = installed(1.0)
    later = Server()
    signal.signal(signal.SIGTERM, later.handle_exit)
    drain.uninstall()
    assert signal.getsignal(signal.SIGTERM) == later.handle_exit


def test_without_a_handler_to_chain_to_nothing_is_installed() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        Drain(1.0).install()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_is_installed(server: Server) -> None:
    thread = threading.Thread(target=Drain(1.0).install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


# Servers without an event loop --------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Callable[..., None], tuple[Any, ...]]]:
    """The threads that would have been started."""
    started: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
    monkeypatch.setattr("_thread.start_new_thread", lambda work, arguments: started.append((work, arguments)))
    return started


def test_without_a_loop_a_thread_waits_and_then_sends_the_signal_again(server: Server, threads: Any) -> None:
    drain, told = Drain(0.001), []
    drain.on_drain(lambda: told.append("left"))
    drain.install()
    signal.raise_signal(signal.SIGTERM)
    assert (drain.draining, told, server.signals) == (False, [], []), "nothing is done inside the signal handler"
    ((wait, arguments),) = threads
    wait(*arguments)
    assert (drain.draining, told, server.signals) == (True, ["left"], [signal.SIGTERM])


def test_without_a_loop_a_second_signal_goes_to_the_server_at_once(server: Server, threads: Any) -> None:
    drain = Drain(0.001)
    drain.install()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert server.signals == [signal.SIGTERM]
    drain.uninstall()
    (wait, arguments), (begin, nothing) = threads
    begin(*nothing)
    assert drain.draining
    wait(*arguments)
    assert server.signals == [signal.SIGTERM], "a server that has ended is not told again"


def test_without_a_loop_and_seconds_the_hooks_are_told_all_the_same(server: Server, threads: Any) -> None:
    drain = Drain(0.0)
    drain.install()
    signal.raise_signal(signal.SIGTERM)
    assert server.signals == [signal.SIGTERM]
    ((begin, nothing),) = threads
    begin(*nothing)
    assert drain.draining
    drain.uninstall()


def test_every_drain_of_a_process_is_installed_by_a_servers_hook(server: Server, threads: Any) -> None:
    drain = Drain(1.0)
    install_all()
    signal.raise_signal(signal.SIGTERM)
    for work, arguments in threads:
        if work == drain._wait:
            assert arguments == (1.0, signal.SIGTERM)
            return
    pytest.fail(f"the drain was not told: {threads}")
