"""A user's `pybreaker.CircuitBreaker` as a breaker of the mesh (pybreaker 1.4 and 1.5).

pybreaker's own `call()` holds a lock while the function runs, counts an awaited coroutine as a success, and lets any
number of probes through `calling()`. So it is never called. Instead its parts are driven: the storage (state, counters,
`opened_at`), `fail_max`, `reset_timeout`, `success_threshold`, `is_system_error` and the listeners, without its lock.
What user code does with the object (`open()`, `close()`, `current_state`, a storage shared with other processes) is
seen at the next call. Time is monotonic: the storage's wall-clock `opened_at` is written for others and compared for
change, never subtracted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from meshlib.policy.breaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    Listener,
    Period,
    Permit,
    State,
    Transition,
)
from meshlib.policy.remote_storage import RemoteStorage

if TYPE_CHECKING:
    import pybreaker

log = logging.getLogger("meshlib.breaker")
T = TypeVar("T")

PRIVATE_ATTRIBUTES = ("_state", "_state_storage")
"""What is used of pybreaker beyond its public names; a test watches that they stay."""


class UpstreamFailure(Exception):  # noqa: N818  it is what happened, and nobody raises it
    """What listeners and exclusions are shown for a failed call that ended without an exception, such as a 503."""


def mesh_call() -> None:
    """Stands for the function in `CircuitBreakerListener.before_call`: the mesh makes calls, but not of a function."""


def circuit_open_error_type() -> type[Exception] | None:
    """`pybreaker.CircuitBreakerError`, for the mesh's own error to inherit from; None when it is not installed.

    Imports pybreaker (some 20 ms, more where redis is installed, which it imports too): for the error path.
    """
    try:
        import pybreaker
    except ImportError:
        return None
    return pybreaker.CircuitBreakerError


class _View(Period):
    """A period as seen in the storage. `changing` is set by the one thread that is writing its successor there."""

    __slots__ = ("changing", "opened_at")

    def __init__(self, state: State, since: float, number: int, slots: int, opened_at: datetime | None) -> None:
        super().__init__(state, since, number, slots)
        self.plain = False  # listeners are told of every call
        self.opened_at = opened_at
        self.changing: dict[str, object] = {}


class PybreakerBridge:
    """Drives `breaker` with the interface of `meshlib.policy.breaker.Breaker`.

    At half-open exactly `half_open_permits` probes of this process are in flight. The call that trips the breaker keeps
    its own result (pybreaker would replace its error). A storage outside of this process, such as Redis, is read and
    written beside the calls (`meshlib.policy.remote_storage`), where pybreaker would have each call wait for it.

    Raises TypeError for an object that is not a pybreaker breaker of a version this can drive.
    """

    def __init__(
        self,
        breaker: pybreaker.CircuitBreaker,
        *,
        half_open_permits: int = 1,
        listeners: Sequence[Listener] = (),
        name: str = "",
        subject: tuple[str, str] = ("", ""),
    ) -> None:
        missing = [name for name in (*PRIVATE_ATTRIBUTES, "is_system_error") if not hasattr(breaker, name)]
        if missing:
            raise TypeError(
                f"{type(breaker).__name__} cannot be driven as a pybreaker.CircuitBreaker (1.4 or 1.5): "
                f"it has no {', '.join(missing)}"
            )
        self.breaker = breaker
        self.name = name or breaker.name or "pybreaker"
        self._subject = subject
        self._storage: Any = _near(breaker)
        self._permits = max(1, half_open_permits)
        self._listeners = tuple(listeners)
        # An open state found at the start is of unknown age: it is timed from the first call that sees it.
        self._period = _View(STATE_CLOSED, -math.inf, 0, 0, None)

    @property
    def current_state(self) -> str:
        """The storage's state."""
        return str(self._storage.state)

    @property
    def fallback(self) -> None:
        """None: a call fails while it is open, as pybreaker's callers do."""

    def refuses_until(self, now: float) -> float | None:
        """Until when the next call would be refused, infinity while that is for the probes to end; None: it would not
        be.
        """
        view = self._view(now)
        if view.state == STATE_OPEN:
            until = view.since + self.breaker.reset_timeout
            return until if now < until else None
        return None if view.state == STATE_CLOSED or view.slots else math.inf

    def retry_after(self, now: float) -> float:
        """Seconds until a probe is let through; 0 when the breaker is not open."""
        view = self._view(now)
        return max(0.0, view.since + self.breaker.reset_timeout - now) if view.state == STATE_OPEN else 0.0

    def permit(self, now: float) -> Permit | None:
        """Leave to make one call, or None: the call must not be made."""
        view = self._view(now)
        if view.state == STATE_OPEN:
            if now < view.since + self.breaker.reset_timeout:
                return None
            view = self._move(view, STATE_HALF_OPEN, now, "reset timeout over")
        if view.state == STATE_OPEN:
            return None
        permit = view.permit if view.state == STATE_CLOSED else view.try_probe()
        if permit is not None:
            self._tell(lambda listener: listener.before_call(self.breaker, mesh_call))
        return permit

    def record(self, permit: Permit, success: bool, now: float, error: BaseException | None = None) -> None:
        """How the call ended; an `error` that the breaker excludes counts as a success."""
        view = cast("_View", permit.period)
        failure = None if success else error or UpstreamFailure("the call failed without an exception")
        if failure is not None and not self.breaker.is_system_error(failure):
            failure = None
        if view.successor:
            self._tell_end(failure)  # about the past: the storage counts for another period by now
        elif view.state == STATE_CLOSED:
            self._record_closed(view, failure, now)
        elif view.end_probe(permit):
            self._record_probe(view, failure, now)
            view.free_slot()

    def release(self, permit: Permit) -> None:
        """The call says nothing (cancelled, never sent): a probe's place becomes free."""
        if permit.period.end_probe(permit):
            permit.period.free_slot()

    def _record_closed(self, view: _View, failure: BaseException | None, now: float) -> None:
        storage = self._storage
        if failure is None:
            view.failures.clear()
            storage.reset_counter()
            self._tell_end(None)
            return
        view.failures.append(None)
        storage.increment_counter()
        self._tell_end(failure)
        # The memory storage loses increments under threads, the shared one knows of other processes: the larger counts.
        if max(storage.counter, len(view.failures)) >= self.breaker.fail_max and not view.successor:
            self._move(view, STATE_OPEN, now, "consecutive failures")

    def _record_probe(self, view: _View, failure: BaseException | None, now: float) -> None:
        storage = self._storage
        if failure is not None:
            storage.increment_counter()
            self._tell_end(failure)
            self._move(view, STATE_OPEN, now, "a probe failed")
            return
        view.successes.append(None)
        storage.reset_counter()
        storage.increment_success_counter()
        if max(storage.success_counter, len(view.successes)) >= self.breaker.success_threshold:
            self._move(view, STATE_CLOSED, now, "probes succeeded")
        self._tell_end(None)

    def _view(self, now: float) -> _View:
        """The current period, replaced first if somebody else has changed the storage's state."""
        view = self._current()
        if view.changing:
            return self._current()
        state = self._storage.state
        if state == view.state and (state != STATE_OPEN or self._opened_at() == view.opened_at):
            return self._move(view, STATE_OPEN, now, "consecutive failures") if self._too_many(view) else view
        if self._current() is not view or view.changing:  # it was our own change, made while we looked
            return self._current()
        return self._move(view, cast("State", state), now, "changed elsewhere", write=False)

    def _too_many(self, view: _View) -> bool:
        """Whether failures of other processes have made it too many, of which this one hears only later."""
        storage = self._storage
        return (
            isinstance(storage, RemoteStorage)
            and view.state == STATE_CLOSED
            and storage.counter >= self.breaker.fail_max
        )

    def settle(self) -> None:
        """Wait until a storage outside of this process has all that calls have told it."""
        if isinstance(self._storage, RemoteStorage):
            self._storage.settle()

    def _current(self) -> _View:
        view = self._period
        while view.successor:
            view = cast("_View", view.successor["next"])
        self._period = view
        return view

    def _move(self, view: _View, state: State, now: float, reason: str, *, write: bool = True) -> _View:
        """End `view`; of several threads one does it, for the others the old period goes on until it is done."""
        token = object()
        if view.changing.setdefault("by", token) is not token:
            return self._current()
        opened_at = view.opened_at
        old = self.breaker._state
        try:
            if write:
                self._write(state)
            if old.name != state:
                self.breaker._state = _state_object(self.breaker, state)
            opened_at = self._opened_at() if state == STATE_OPEN else None
        finally:
            slots = self._permits if state == STATE_HALF_OPEN else 0
            successor = _View(state, now, view.number + 1, slots, opened_at)
            view.successor["next"] = self._period = successor
        self._report(view, successor, old, reason)
        return successor

    def _write(self, state: State) -> None:
        """What pybreaker's `open`, `half_open` and `close` write, without its lock and its listeners."""
        storage = self._storage
        storage.reset_success_counter()
        if state == STATE_OPEN:
            storage.opened_at = datetime.now(UTC)
        elif state == STATE_CLOSED:
            storage.reset_counter()
        storage.state = state

    def _opened_at(self) -> datetime | None:
        found: datetime | None = self._storage.opened_at
        return found

    def _report(self, old: _View, new: _View, old_state: pybreaker.CircuitBreakerState, reason: str) -> None:
        state = self.breaker._state
        if old_state is not state:
            self._tell(lambda listener: listener.state_change(self.breaker, old_state, state))
        figures = {"consecutive_failures": len(old.failures), "successes": len(old.successes)}
        transition = Transition(self.name, old.state, new.state, new.since, reason, figures, new.number, self._subject)
        for listener in self._listeners:
            self._guard(listener, transition)

    def _tell_end(self, failure: BaseException | None) -> None:
        if failure is None:
            self._tell(lambda listener: listener.success(self.breaker))
        else:
            self._tell(lambda listener: listener.failure(self.breaker, failure))

    def _tell(self, message: Callable[[pybreaker.CircuitBreakerListener], None]) -> None:
        for listener in self.breaker.listeners:
            self._guard(message, listener)

    def _guard(self, call: Callable[[T], None], argument: T) -> None:
        try:
            call(argument)
        except Exception:
            log.exception("a listener of circuit breaker %s failed", self.name)


def _near(breaker: pybreaker.CircuitBreaker) -> Any:
    """The breaker's storage, if it is in memory; else what stands for it here."""
    import pybreaker

    storage = breaker._state_storage
    return storage if isinstance(storage, pybreaker.CircuitMemoryStorage) else RemoteStorage(storage)


def _state_object(breaker: pybreaker.CircuitBreaker, state: State) -> Any:
    """The object pybreaker keeps for a state, made without telling the listeners."""
    import pybreaker

    classes = {
        STATE_CLOSED: pybreaker.CircuitClosedState,
        STATE_OPEN: pybreaker.CircuitOpenState,
        STATE_HALF_OPEN: pybreaker.CircuitHalfOpenState,
    }
    return classes[state](breaker, prev_state=breaker._state, notify=False)
