"""The record of self-healing: what was isolated and why, how it was tried again, and when it was back.

Several parts of the mesh protect callers from one endpoint: outlier detection, failover by connections, health checks,
circuit breakers. Each says what it did by an event of its own; here they come to one state machine for each subject:

    healthy ──(detected, isolated)──▶ isolated ──▶ probing ──▶ healthy (restored)
                                          ▲            │
                                          └────────────┘

A subject that several parts hold out is restored when the last of them lets go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from meshlib.engine.events import (
    BreakerChanged,
    EndpointEjected,
    EndpointHealthChanged,
    EndpointReachable,
    EndpointReturned,
    EndpointUnreachable,
    Event,
    HealingChanged,
    HealingState,
)

SIZE = 1000
"""Changes that are remembered."""
_BREAKER: dict[str, HealingState] = {"open": "isolated", "half-open": "probing", "closed": "healthy"}
_Told = tuple[str, str, str, HealingState, str]
"""(Cluster, endpoint or empty, by what, new state of it, reason)."""


class HealingRecord:
    """Of one mesh, in one process. `changes` holds the last thousand, oldest first. Rare events only, from any thread:
    a change that two threads cause at once may be told twice, never not at all.
    """

    def __init__(self) -> None:
        self.changes: deque[HealingChanged] = deque(maxlen=SIZE)
        self._held: dict[tuple[str, str], dict[str, HealingState]] = {}

    def take(self, event: Event) -> HealingChanged | None:
        """What an event means for its subject; None: nothing new, or no event of this kind."""
        read = _READERS.get(type(event))
        if read is None:
            return None
        cluster, endpoint, by, state, reason = read(event)
        subject = cluster, endpoint
        held = self._held.setdefault(subject, {})
        old = _worst(held)
        if state == "healthy":
            held.pop(by, None)
        else:
            held[by] = state
        new = _worst(held)
        if not held:
            self._held.pop(subject, None)
        if new == old:
            return None
        change = HealingChanged(event.at, cluster, endpoint, old, new, by, reason)
        self.changes.append(change)
        return change

    def out(self) -> dict[tuple[str, str], HealingState]:
        """What is not healthy now, by (cluster or breaker, endpoint; empty for the cluster as a whole)."""
        return {subject: _worst(held) for subject, held in list(self._held.items()) if held}

    def keep_only(self, is_there: Callable[[str, str], bool]) -> None:
        """Forget endpoints that have left, of (cluster, endpoint)s."""
        for subject in list(self._held):
            if subject[1] and not is_there(*subject):
                self._held.pop(subject, None)


def _worst(held: dict[str, HealingState]) -> HealingState:
    states = list(held.values())
    if "isolated" in states:
        return "isolated"
    return "probing" if "probing" in states else "healthy"


def _ejected(event: EndpointEjected) -> _Told:
    found = f"{event.reason}: {event.details}" if event.details else event.reason
    reason = f"{found}, for {event.seconds:g} s"
    return event.cluster, event.endpoint, "outlier detection", "isolated", reason


def _returned(event: EndpointReturned) -> _Told:
    return event.cluster, event.endpoint, "outlier detection", "healthy", event.reason or "its time is over"


def _unreachable(event: EndpointUnreachable) -> _Told:
    return event.cluster, event.endpoint, "connections", "isolated", "no connection can be made to it"


def _reachable(event: EndpointReachable) -> _Told:
    return event.cluster, event.endpoint, "connections", "healthy", "it can be connected to"


def _checked(event: EndpointHealthChanged) -> _Told:
    state: HealingState = "isolated" if event.new == "unhealthy" else "healthy"
    return event.cluster, event.endpoint, "health checks", state, event.reason


def _breaker(event: BreakerChanged) -> _Told:
    figures = ", ".join(f"{name}={value:g}" for name, value in event.figures.items())
    reason = f"{event.reason}: {figures}" if figures else event.reason
    return event.cluster or event.name, event.endpoint, "circuit breaker", _BREAKER[event.new], reason


_READERS: dict[type, Callable[[Any], _Told]] = {
    EndpointEjected: _ejected,
    EndpointReturned: _returned,
    EndpointUnreachable: _unreachable,
    EndpointReachable: _reachable,
    EndpointHealthChanged: _checked,
    BreakerChanged: _breaker,
}
