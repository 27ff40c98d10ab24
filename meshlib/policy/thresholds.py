"""Circuit-breaker thresholds: how much of something may be in flight (`envoy.config.cluster.v3.CircuitBreakers`).

A token per thing in flight lies in a dict of the cluster's `PriorityState`; the dict's size is the count. The token is
put in first and taken out again when that made one too many: under threads this may refuse a little early, never admit
too late.
"""

from __future__ import annotations

from meshlib.model.cluster import Thresholds
from meshlib.state.cells import PriorityState
from meshlib.state.counter import Counter


def admit(container: dict[object, None], limit: int, token: object) -> bool:
    """Put `token` in if no more than `limit` are then inside. The token must be new: it stands for one thing."""
    container[token] = None
    if len(container) <= limit:
        return True
    container.pop(token, None)
    return False


def release(container: dict[object, None], token: object) -> None:
    """Take `token` out; one that is not inside does no harm."""
    container.pop(token, None)


def per_endpoint(thresholds: Thresholds) -> int:
    """How many connections one endpoint may have: no more than the cluster."""
    own = thresholds.max_connections_per_host
    return thresholds.max_connections if own is None else min(own, thresholds.max_connections)


class Gate:
    """One threshold over one container, for whoever only needs to get in and out (the wire's pools).

    `overflow` counts the refusals.
    """

    __slots__ = ("_container", "limit", "overflow")

    def __init__(self, container: dict[object, None], limit: int, overflow: Counter | None = None) -> None:
        self._container = container
        self.limit = limit
        self.overflow = overflow if overflow is not None else Counter()

    @property
    def active(self) -> int:
        """How many are inside."""
        return len(self._container)

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open, in Envoy's words: the next one would be refused (`cx_open`, `rq_open`, ...)."""
        return len(self._container) >= self.limit

    def try_acquire(self, token: object) -> bool:
        """Get in with a new token; False is an overflow."""
        if admit(self._container, self.limit, token):
            return True
        self.overflow.add()
        return False

    def refuse(self) -> None:
        """Count a refusal by a limit that lies within this one."""
        self.overflow.add()

    def release(self, token: object) -> None:
        """Get out."""
        self._container.pop(token, None)


def connection_gate(state: PriorityState, thresholds: Thresholds, overflow: Counter | None = None) -> Gate:
    """The gate in front of new connections (`max_connections`)."""
    return Gate(state.connections, thresholds.max_connections, overflow)


def pending_gate(state: PriorityState, thresholds: Thresholds, overflow: Counter | None = None) -> Gate:
    """The gate in front of the queue for a connection (`max_pending_requests`)."""
    return Gate(state.pending, thresholds.max_pending_requests, overflow)


def request_gate(state: PriorityState, thresholds: Thresholds, overflow: Counter | None = None) -> Gate:
    """The gate in front of requests (`max_requests`)."""
    return Gate(state.requests, thresholds.max_requests, overflow)
