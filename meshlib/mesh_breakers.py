"""What a mesh makes of the circuit breakers from code: policies, pybreaker's objects, and what makes one of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from meshlib.engine.circuits import BreakerLike, PerEndpoint, endpoint_breaker
from meshlib.engine.events import BreakerChanged
from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.policy.breaker import Breaker, Listener, Transition


def breakers_of(given: Mapping[str, Any], heard: Listener) -> dict[str, BreakerLike | PerEndpoint]:
    """The breakers by the names of clusters and routes; `heard` is told of their changes. Raises TypeError for what is
    neither a policy, nor a pybreaker object, nor a function that makes them.
    """
    return {name: _breaker(name, each, heard) for name, each in given.items()}


def _breaker(name: str, given: Any, heard: Listener) -> BreakerLike | PerEndpoint:
    if isinstance(given, CircuitBreaker):
        if given.scope == "endpoint":
            return PerEndpoint(partial(_of_policy, given, name, heard))
        return Breaker(given, name, (heard,))
    if _makes(given):
        return PerEndpoint(partial(_made, given, name, heard))
    from meshlib.policy.pybreaker_bridge import PybreakerBridge

    return PybreakerBridge(given, listeners=(heard,))


def _makes(given: Any) -> bool:
    """Whether it makes breakers. A pybreaker object can be called too: it decorates."""
    return callable(given) and not hasattr(given, "current_state")


def _made(make: Callable[[str], Any], name: str, heard: Listener, address: str) -> BreakerLike:
    made = make(address)
    if isinstance(made, CircuitBreaker):
        return _of_policy(made, name, heard, address)
    from meshlib.policy.pybreaker_bridge import PybreakerBridge

    return PybreakerBridge(made, listeners=(heard,), name=f"{made.name or name}@{address}", subject=(name, address))


def _of_policy(policy: CircuitBreaker, name: str, heard: Listener, address: str) -> BreakerLike:
    return endpoint_breaker(policy, name, address, (heard,))


def event_of(change: Transition) -> BreakerChanged:
    """What observers are told of a change."""
    return BreakerChanged(
        change.now, change.name, change.old, change.new, change.reason, change.figures, *change.subject
    )
