"""Retry admission: may the cluster bear one more retry? (`max_retries`, or a retry budget in its place.)"""

from __future__ import annotations

from meshlib.model.cluster import Thresholds
from meshlib.policy import thresholds as gates
from meshlib.state.cells import PriorityState


def retry_limit(state: PriorityState, thresholds: Thresholds) -> int:
    """How many retries may be in flight now.

    With a budget: `budget_percent` of the requests active or pending, rounded down, but at least
    `min_retry_concurrency` (Envoy: 20 %, 3). Without: `max_retries`.
    """
    budget = thresholds.retry_budget
    if budget is None:
        return thresholds.max_retries
    active = len(state.requests) + len(state.pending)
    return max(budget.min_retry_concurrency, int(budget.budget_percent / 100.0 * active))


def admit_retry(state: PriorityState, thresholds: Thresholds, token: object) -> bool:
    """Let one more retry in under a new `token`; False means the retry is not made (`upstream_rq_retry_overflow`).

    A retry is in flight from this decision, its back-off included, until `release`: that is what makes the budget hold
    in a storm, when every call is waiting to retry.
    """
    return gates.admit(state.retries, retry_limit(state, thresholds), token)


def release(state: PriorityState, token: object) -> None:
    """The retry has ended, or its call was given up."""
    gates.release(state.retries, token)
