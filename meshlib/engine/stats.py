"""Counting attempts under Envoy's stat names (`cluster.<name>.upstream_rq_*`)."""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.model.outcome import Failure, Outcome
from meshlib.state.counter import Counter

_BY_STATUS = {status: f"upstream_rq_{status // 100}xx" for status in range(200, 600)}
_BY_FAILURE = {
    Failure.CONNECT: ("upstream_cx_connect_fail",),
    Failure.CONNECT_TIMEOUT: ("upstream_cx_connect_fail",),
    Failure.OVERFLOW: ("upstream_rq_pending_overflow",),
    Failure.PER_TRY_TIMEOUT: ("upstream_rq_per_try_timeout",),
    Failure.TIMEOUT: ("upstream_rq_timeout",),
    Failure.POOL_TIMEOUT: ("upstream_rq_timeout",),
    Failure.IDLE: ("upstream_rq_timeout",),
    Failure.LOCAL: (),
    Failure.NESTED: (),
}
_RESET = ("upstream_rq_rx_reset",)


def count(stats: Mapping[str, Counter], outcome: Outcome) -> None:
    """Count one finished attempt."""
    if outcome.failure is not None:
        for name in _BY_FAILURE.get(outcome.failure, _RESET):
            stats[name].add()
        return
    stats["upstream_rq_completed"].add()
    by_class = _BY_STATUS.get(outcome.status or 0)
    if by_class is not None:
        stats[by_class].add()
