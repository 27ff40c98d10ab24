"""`@circuit_breaker(...)`: a breaker around any function, blocking or asyncio, without a mesh or a service.

Functions under the route of a service have its breakers already (`Mesh.guard`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

from meshlib.decorators import errors
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.policy.breaker import Breaker, Permit

__all__ = ["circuit_breaker"]

F = TypeVar("F", bound=Callable[..., Any])


class Guarding(Protocol):
    """A breaker as functions use it."""

    name: str

    def permit(self, now: float) -> Permit | None:
        """Leave to make one call, or None."""

    def record(self, permit: Permit, success: bool, now: float, error: BaseException | None = None) -> None:
        """How it ended."""

    def release(self, permit: Permit) -> None:
        """It says nothing: it was cancelled."""


def circuit_breaker(
    breaker: CircuitBreaker | Guarding | Any, *, name: str = "", fallback: Callable[..., Any] | None = None
) -> Callable[[F], F]:
    """Guard a function: an `Exception` that it raises is a failure, unless the breaker excludes it.

    `breaker` is a policy, then each function so decorated has a breaker of its own, called `name` or after the
    function; or a `meshlib.policy.breaker.Breaker` or a `pybreaker.CircuitBreaker`, which the functions share. While it
    refuses, `fallback` is called in the function's place with its arguments (of an async function it is awaited if it
    is async); without one `CircuitOpenError` is raised, which is a `pybreaker.CircuitBreakerError` too where pybreaker
    is installed. No lock is held while the function runs.

    Raises TypeError for a breaker that is none of these.
    """
    policy = breaker if isinstance(breaker, CircuitBreaker) else None
    shared = None if policy is not None else _driven(breaker)

    def decorate(function: F) -> F:
        guarding = shared or Breaker(policy or CircuitBreaker(), name or function.__qualname__, now=time.monotonic())
        wrap = _asynchronous if inspect.iscoroutinefunction(function) else _blocking
        guarded: F = wrap(function, guarding, fallback)
        return guarded

    return decorate


def _driven(breaker: Any) -> Guarding:
    if hasattr(breaker, "permit"):
        guarding: Guarding = breaker
        return guarding
    from meshlib.policy.pybreaker_bridge import PybreakerBridge

    return PybreakerBridge(breaker)


def _blocking(function: Callable[..., Any], breaker: Guarding, fallback: Callable[..., Any] | None) -> Any:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        permit = breaker.permit(time.monotonic())
        if permit is None:
            if fallback is None:
                raise _refused(breaker)
            return fallback(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            _failed(breaker, permit, error)
            raise
        breaker.record(permit, True, time.monotonic())
        return result

    return guarded


def _asynchronous(function: Callable[..., Any], breaker: Guarding, fallback: Callable[..., Any] | None) -> Any:
    @wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        permit = breaker.permit(time.monotonic())
        if permit is None:
            if fallback is None:
                raise _refused(breaker)
            answer = fallback(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            _failed(breaker, permit, error)
            raise
        breaker.record(permit, True, time.monotonic())
        return result

    return guarded


def _failed(breaker: Guarding, permit: Permit, error: BaseException) -> None:
    """What is no `Exception` (cancelled, interrupted) says nothing about what the function calls."""
    if isinstance(error, Exception):
        breaker.record(permit, False, time.monotonic(), error)
    else:
        breaker.release(permit)


def _refused(breaker: Guarding) -> Exception:
    reason = f"the circuit breaker {breaker.name!r} is open"
    return errors.of_refusal(CallFailure(ResponseFlag.UO, reason, circuit_open=True))
