"""`circuit_breaker`: leave alone for a while what keeps failing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.decorators.errors import of_refusal
from meshlib.decorators.live import Settings
from meshlib.decorators.modes import mode
from meshlib.decorators.pipeline import Decorator
from meshlib.decorators.stages.retrying import REFUSED
from meshlib.decorators.steps import Below, ExpiredError, Running, Steps
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.cluster import CircuitBreaker
from meshlib.policy.breaker import Breaker, Listener

if TYPE_CHECKING:
    from meshlib.engine.circuits import BreakerLike
    from meshlib.mesh import Mesh


@dataclass(frozen=True, slots=True)
class _Policy:
    fail_max: int
    reset_timeout: float
    success_threshold: int
    half_open_permits: int

    def __post_init__(self) -> None:
        if min(self.fail_max, self.success_threshold, self.half_open_permits) < 1 or self.reset_timeout < 0:
            raise ValueError("counts are 1 or more, and reset_timeout is seconds, 0 or more")


class circuit_breaker(Decorator):  # noqa: N801
    """`@circuit_breaker(fail_max=5, reset_timeout=60)`: after so many failures in a row calls are refused for so many
    seconds, then `half_open_permits` at a time try, and after `success_threshold` successes all are let through again.
    Refused calls raise `CircuitOpenError`, which is `pybreaker.CircuitBreakerError` as well.

    Or `@circuit_breaker(policy)` with a `CircuitBreaker`, which has failure rates, slow calls and more; or with a
    `meshlib.policy.breaker.Breaker` that several functions share; or with a `pybreaker.CircuitBreaker` of yours: its
    listeners, storage and excluded exceptions count, and its lock is never held over a call. `exclude`: exceptions that
    are an answer and no failure. `listeners` hear of transitions. A call that was given up, or that a limit below
    refused, says nothing.
    """

    def __init__(
        self,
        breaker: Any = None,
        *,
        fail_max: int = 5,
        reset_timeout: float = 60.0,
        success_threshold: int = 1,
        half_open_permits: int = 1,
        exclude: tuple[type[BaseException], ...] = (),
        listeners: tuple[Listener, ...] = (),
        name: str = "",
        mesh: Mesh | None = None,
    ) -> None:
        policy = _Policy(fail_max, reset_timeout, success_threshold, half_open_permits)
        self._settings = Settings("circuit_breaker", policy, name, mesh)
        self._exclude = exclude
        self._own: Breaker | None = None
        self.breaker: BreakerLike
        """Its state: `current_state`, as pybreaker has it."""
        if isinstance(breaker, CircuitBreaker):
            self.breaker = Breaker(breaker, name or "decorator", listeners)
        elif hasattr(breaker, "permit"):
            self.breaker = breaker
        elif breaker is not None:
            from meshlib.policy.pybreaker_bridge import PybreakerBridge

            self.breaker = PybreakerBridge(breaker, half_open_permits=half_open_permits, listeners=listeners)
        else:
            self.breaker = self._own = Breaker(_model(policy), name or "decorator", listeners)

    def around(self, call: Running, below: Below) -> Steps:
        """The call with a permit."""
        if not mode().protects:
            return (yield from below(call))
        self._follow()
        permit = self.breaker.permit(call.clock())
        if permit is None:
            raise of_refusal(self._refused(call))
        try:
            result: Any = yield from below(call)
        except (Exception, ExpiredError) as error:
            if isinstance(error, REFUSED):
                self.breaker.release(permit)
            else:
                self.breaker.record(permit, isinstance(error, self._exclude), call.clock(), error)
            raise
        except BaseException:  # cancelled, interrupted, dropped
            self.breaker.release(permit)
            raise
        self.breaker.record(permit, True, call.clock())
        return result

    def _follow(self) -> None:
        """A policy that the configuration has changed counts from the next decision."""
        if self._own is not None:
            model = _model(self._settings.now())
            if model != self._own.policy:
                self._own.policy = model

    def _refused(self, call: Running) -> CallFailure:
        retry_after: Any = getattr(self.breaker, "retry_after", None)
        left = "" if retry_after is None else f" for {retry_after(call.clock()):.1f} s more"
        return CallFailure(ResponseFlag.UO, f"the circuit breaker is open{left}", call.name, circuit_open=True)


def _model(policy: _Policy) -> CircuitBreaker:
    return CircuitBreaker(policy.fail_max, policy.reset_timeout, policy.success_threshold, policy.half_open_permits)
