"""Failover by connections: endpoints that nothing can be connected to do not count (gRPC's priority policy, gRFC A56).

Envoy goes by health alone, and so does the mesh unless it is told otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.balancing.base import Host
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import Classification

if TYPE_CHECKING:
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.commands import Start
    from meshlib.engine.observing import Observe

UNREACHED = (Failure.CONNECT, Failure.CONNECT_TIMEOUT)
TOO_LATE = (Failure.PER_TRY_TIMEOUT, Failure.TIMEOUT)


class ReachLike(Protocol):
    """Who keeps track of it. `timeout` is the failover timer in seconds: nothing is waited for longer."""

    timeout: float

    def failed(self, cluster: ClusterPlan, host: Host) -> None:
        """A connection to the host has failed. Called inside a call, as the others are: quick, and does not raise."""

    def doubted(self, cluster: ClusterPlan, host: Host) -> None:
        """Time ran out before the request was sent to the host; it may be that no connection was made."""

    def reached(self, cluster: ClusterPlan, host: Host) -> None:
        """A host that was out of reach has been connected to."""


def failing(reach: ReachLike, observe: Observe | None) -> Observe:
    """What hears of a cluster's attempts, with those told on whose connections failed."""

    def hear(start: Start, outcome: Outcome, verdict: Classification) -> None:
        if outcome.failure in UNREACHED:
            reach.failed(start.cluster, start.host)
        elif outcome.failure in TOO_LATE and not outcome.request_sent:
            reach.doubted(start.cluster, start.host)
        elif start.host.cell.out_of_reach and outcome.failure is None:
            reach.reached(start.cluster, start.host)
        if observe is not None:
            observe(start, outcome, verdict)

    return hear
