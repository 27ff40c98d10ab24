"""A user's pybreaker object, driven without `call()` and without its lock."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pybreaker
import pytest

from meshlib.policy import pybreaker_bridge
from meshlib.policy.breaker import Permit, Transition
from meshlib.policy.pybreaker_bridge import (
    PRIVATE_ATTRIBUTES,
    PybreakerBridge,
    UpstreamFailure,
    circuit_open_error_type,
)


def _can_take(lock: Any) -> bool:
    if not lock.acquire(timeout=0.2):
        return False
    lock.release()
    return True


class Recorder(pybreaker.CircuitBreakerListener):
    """What was told, and whether the breaker's lock was free while it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.locked = False

    def _note(self, breaker: pybreaker.CircuitBreaker, what: Any) -> None:
        self.told.append(what)
        with ThreadPoolExecutor(1) as other:  # the lock is re-entrant: only another thread can tell
            self.locked = self.locked or not other.submit(_can_take, breaker._lock).result()

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self._note(cb, "before")

    def success(self, cb: Any) -> None:
        self._note(cb, "success")

    def failure(self, cb: Any, exc: BaseException) -> None:
        self._note(cb, type(exc).__name__)

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self._note(cb, (old_state.name, new_state.name))


def user_breaker(**options: Any) -> pybreaker.CircuitBreaker:
    return pybreaker.CircuitBreaker(**{"fail_max": 3, "reset_timeout": 10, **options})


def permit(bridge: PybreakerBridge, now: float = 0.0) -> Permit:
    given = bridge.permit(now)
    assert given is not None
    return given


def fail(bridge: PybreakerBridge, now: float = 0.0, times: int = 3, error: BaseException | None = None) -> None:
    for _ in range(times):
        bridge.record(permit(bridge, now), False, now, error)


def test_the_users_object_shows_what_the_mesh_did() -> None:
    breaker = user_breaker()
    bridge = PybreakerBridge(breaker)
    fail(bridge, times=2)
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 2)
    bridge.record(permit(bridge), True, 0.0)
    assert breaker.fail_counter == 0
    fail(bridge, 5.0)
    assert breaker.current_state == "open"
    assert bridge.permit(14.9) is None
    assert bridge.retry_after(10.0) == 5.0
    probe = permit(bridge, 15.0)
    assert breaker.current_state == "half-open"
    assert bridge.permit(15.0) is None
    bridge.record(probe, True, 15.0)
    assert (breaker.current_state, breaker.fail_counter, breaker.state.name) == ("closed", 0, "closed")


def test_an_open_breaker_refuses_pybreakers_own_callers_too() -> None:
    breaker = user_breaker()
    fail(PybreakerBridge(breaker))
    with pytest.raises(pybreaker.CircuitBreakerError):
        breaker.call(lambda: None)


def test_success_threshold_and_half_open_permits() -> None:
    bridge = PybreakerBridge(user_breaker(success_threshold=3), half_open_permits=2)
    fail(bridge)
    first, second = permit(bridge, 10.0), permit(bridge, 10.0)
    assert bridge.permit(10.0) is None
    bridge.record(first, True, 10.0)
    bridge.record(first, True, 10.0)
    bridge.release(second)
    third, fourth = permit(bridge, 10.0), permit(bridge, 10.0)
    assert bridge.permit(10.0) is None
    bridge.record(third, True, 10.0)
    assert bridge.current_state == "half-open"
    bridge.record(fourth, True, 10.0)
    assert bridge.current_state == "closed"


def test_a_failed_probe_opens_it_again() -> None:
    bridge = PybreakerBridge(user_breaker())
    fail(bridge)
    bridge.record(permit(bridge, 10.0), False, 12.0)
    assert bridge.permit(21.9) is None
    assert permit(bridge, 22.0).probe


def test_user_code_opens_and_closes_it() -> None:
    breaker = user_breaker()
    bridge = PybreakerBridge(breaker)
    permit(bridge)
    breaker.open()
    assert bridge.permit(1.0) is None
    assert bridge.permit(10.9) is None
    breaker.open()  # again: its time starts anew
    assert bridge.permit(11.0) is None
    assert bridge.permit(20.9) is None
    breaker.close()
    assert not permit(bridge, 20.9).probe
    breaker.half_open()
    assert permit(bridge, 20.9).probe
    assert bridge.permit(20.9) is None


def test_a_breaker_that_is_open_already_is_timed_from_the_first_sight() -> None:
    breaker = user_breaker()
    breaker.open()
    bridge = PybreakerBridge(breaker)
    assert bridge.permit(1000.0) is None
    assert bridge.permit(1009.9) is None
    assert permit(bridge, 1010.0).probe


@pytest.mark.parametrize("hours", [1, -1])
def test_steps_of_the_wall_clock_change_nothing(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    class Stepped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    bridge = PybreakerBridge(user_breaker(success_threshold=2))
    fail(bridge, 0.0)
    monkeypatch.setattr(pybreaker_bridge, "datetime", Stepped)
    assert bridge.permit(9.9) is None
    bridge.record(permit(bridge, 10.0), False, 10.0)
    assert bridge.permit(19.9) is None
    for at in (20.0, 20.5):
        bridge.record(permit(bridge, at), True, at)
    assert bridge.current_state == "closed"


@pytest.mark.parametrize("hours", [1, -1])
def test_where_pybreaker_itself_goes_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """What the test above is worth: with the same step pybreaker calls at once, or not for another hour."""

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    theirs = user_breaker(fail_max=1, reset_timeout=0.01)
    theirs.open()
    time.sleep(0.02)
    monkeypatch.setattr(pybreaker, "datetime", Stepped)
    if hours > 0:
        theirs.reset_timeout = 3000
        assert theirs.call(lambda: "called") == "called"
    else:
        with pytest.raises(pybreaker.CircuitBreakerError):
            theirs.call(lambda: "called")


def test_a_storage_shared_with_another_breaker_is_one_breaker() -> None:
    storage = pybreaker.CircuitMemoryStorage("closed")
    ours, theirs = user_breaker(state_storage=storage), user_breaker(state_storage=storage)
    mine, other = PybreakerBridge(ours), PybreakerBridge(theirs)
    fail(mine, times=2)
    fail(other, times=1)
    assert mine.permit(1.0) is None
    assert ours.state.name == "open"


def test_excluded_exceptions_are_successes() -> None:
    breaker = user_breaker(exclude=[KeyError, lambda error: "fine" in str(error)])
    bridge = PybreakerBridge(breaker)
    fail(bridge, times=2)
    bridge.record(permit(bridge), False, 0.0, KeyError("not found"))
    assert breaker.fail_counter == 0
    fail(bridge, times=5, error=ValueError("this is fine"))
    assert breaker.current_state == "closed"
    fail(bridge, times=3, error=ValueError("this is not"))
    assert breaker.current_state == "open"


def test_listeners_hear_everything_and_never_under_the_breakers_lock() -> None:
    recorder = Recorder()
    bridge = PybreakerBridge(user_breaker(fail_max=2, listeners=[recorder]))
    bridge.record(permit(bridge), True, 0.0)
    fail(bridge, times=1)
    fail(bridge, times=1, error=OSError("reset"))
    bridge.record(permit(bridge, 10.0), True, 10.0)
    calls = ["before", "success", "before", UpstreamFailure.__name__, "before", "OSError", ("closed", "open")]
    probe = [("open", "half-open"), "before", ("half-open", "closed"), "success"]
    assert recorder.told == calls + probe
    assert not recorder.locked


def test_a_listener_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no pager today")

    bridge = PybreakerBridge(user_breaker(listeners=[Broken()]))
    bridge.record(permit(bridge), True, 0.0)
    assert "no pager today" in caplog.text


def test_transitions_are_reported_as_those_of_our_own_breaker() -> None:
    seen: list[Transition] = []
    breaker = user_breaker(name="payments")
    bridge = PybreakerBridge(breaker, listeners=[seen.append])
    fail(bridge, 3.0)
    breaker.close()
    permit(bridge, 4.0)
    assert [(change.name, change.old, change.new, change.now) for change in seen] == [
        ("payments", "closed", "open", 3.0),
        ("payments", "open", "closed", 4.0),
    ]
    assert seen[1].reason == "changed elsewhere"


def test_a_call_in_progress_under_pybreakers_lock_does_not_stop_the_mesh() -> None:
    breaker = user_breaker()
    bridge = PybreakerBridge(breaker)
    entered, leave = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(breaker.call, slow)
        assert entered.wait(10)
        fail(bridge)
        assert breaker.current_state == "open"
        leave.set()
        running.result(10)


async def test_a_hundred_tasks_overlap() -> None:
    bridge = PybreakerBridge(user_breaker())

    async def call() -> None:
        given = permit(bridge)
        await asyncio.sleep(0.05)
        bridge.record(given, True, 0.0)

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(100)))
    assert time.perf_counter() - started < 1.0  # one after the other would take five seconds


def test_while_another_thread_changes_the_state_the_old_one_goes_on() -> None:
    breaker = user_breaker()
    bridge = PybreakerBridge(breaker)
    fail(bridge, times=2)
    bridge._period.changing["by"] = "another thread"
    fail(bridge, times=1)  # would open it
    assert breaker.current_state == "closed"
    breaker._state_storage.state = "open"  # the other thread has written half of its change
    assert not permit(bridge).probe
    assert bridge._period.number == 0


@pytest.mark.usefixtures("hasty_threads")
def test_eight_threads_open_it_once_and_get_exactly_one_probe() -> None:
    seen: list[Transition] = []
    bridge = PybreakerBridge(user_breaker(fail_max=50), listeners=[seen.append])
    start = threading.Barrier(8)

    def storm(_: int) -> None:
        start.wait()
        for _ in range(200):
            given = bridge.permit(0.0)
            if given is not None:
                bridge.record(given, False, 0.0)

    def ask(_: int) -> int:
        start.wait()
        return sum(bridge.permit(10.0) is not None for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storm, range(8)))
        assert [change.new for change in seen] == ["open"]
        assert sum(pool.map(ask, range(8))) == 1


def test_the_meshs_error_can_be_pybreakers() -> None:
    assert circuit_open_error_type() is pybreaker.CircuitBreakerError


def test_something_else_is_refused_with_what_is_missing() -> None:
    with pytest.raises(TypeError, match="_state_storage"):
        PybreakerBridge(object())  # type: ignore[arg-type]


def test_canary_what_is_used_of_pybreakers_inside_is_still_there() -> None:
    plain = user_breaker()
    for name in PRIVATE_ATTRIBUTES:
        assert hasattr(plain, name)
    storage = plain._state_storage
    for name in ("state", "counter", "success_counter", "opened_at"):
        assert hasattr(storage, name)
    for name in ("increment_counter", "reset_counter", "increment_success_counter", "reset_success_counter"):
        assert callable(getattr(storage, name))
    for cls in (pybreaker.CircuitClosedState, pybreaker.CircuitOpenState, pybreaker.CircuitHalfOpenState):
        assert cls(plain, prev_state=None, notify=False).name in ("closed", "open", "half-open")
