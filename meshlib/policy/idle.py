"""Idle limits: how long an endpoint may be silent.

Envoy's `stream_idle_timeout`, `idle_timeout` and `per_try_idle_timeout`, in seconds; a limit of 0 is off. Only silence
counts, so a response that keeps coming may take as long as it likes.
"""

from __future__ import annotations

from typing import NamedTuple

from meshlib.model.outcome import Failure


class IdleLimit(NamedTuple):
    """The silence allowed, and what it means to exceed it: `IDLE` (final, SI) or `PER_TRY_TIMEOUT` (retriable, UT)."""

    seconds: float
    failure: Failure


def compile_idle(route: float | None, manager: float | None, per_try: float | None) -> IdleLimit | None:
    """The limit of a route: its own `idle_timeout` takes the place of the manager's `stream_idle_timeout`, and the
    retry policy's `per_try_idle_timeout` counts where it is the shorter one.
    """
    stream = manager if route is None else route
    if per_try and not (stream and stream < per_try):
        return IdleLimit(per_try, Failure.PER_TRY_TIMEOUT)
    return IdleLimit(stream, Failure.IDLE) if stream else None
