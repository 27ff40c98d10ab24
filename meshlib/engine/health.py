"""Responses by which an endpoint takes itself out (`x-envoy-immediate-health-check-fail`), as Envoy's router has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balancing.base import Host
from meshlib.model.outcome import Outcome
from meshlib.policy.classify import Classification

if TYPE_CHECKING:
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.commands import Start
    from meshlib.engine.observing import Observe

HEADER = "x-envoy-immediate-health-check-fail"
TakeOut: TypeAlias = "Callable[[ClusterPlan, Host], None]"
"""Whoever checks the cluster's endpoints hears of it so. Called inside a call: quick, and does not raise."""


def heeding(take_out: TakeOut, observe: Observe | None) -> Observe:
    """What hears of the attempts of a cluster whose endpoints are checked, with those told on who say so."""

    def hear(start: Start, outcome: Outcome, verdict: Classification) -> None:
        if outcome.headers and outcome.header(HEADER) is not None:
            take_out(start.cluster, start.host)
        if observe is not None:
            observe(start, outcome, verdict)

    return hear
