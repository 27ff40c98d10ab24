"""Slow start: endpoints that have just joined take less than their weight (Envoy's documentation, "Slow start mode").

An endpoint's time begins when it is first seen healthy, and, as in an Envoy without active health checks, once: one
that comes back from ejection has its full weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balancing.base import Host
from meshlib.balancing.timed import Weigh
from meshlib.model.lb import SlowStart

STEPS = 100  # of a window: weights are a hundredth of it old at most
LEAST_AGE = 0.001  # Envoy counts at least a millisecond
LEAST = 1e-6  # of a weight: without `min_weight_percent` and little aggression it would be 0, and have no turn at all


def factor(config: SlowStart, age: float) -> float:
    """What is taken of a weight `age` seconds after the endpoint joined."""
    if age >= config.window:
        return 1.0
    part = max(age, LEAST_AGE) / config.window
    return float(max(config.min_weight_percent / 100.0, part ** (1.0 / config.aggression), LEAST))


def warming(config: SlowStart, weigh: Weigh) -> Weigh:
    """Weights of `weigh`, less for endpoints that are new."""

    def weighed(hosts: Sequence[Host], now: float) -> tuple[Sequence[float], float]:
        weights, due = weigh(hosts, now)
        ages = [_age(host, now) for host in hosts]
        if min(ages) >= config.window:
            return weights, due
        less = [weight * factor(config, age) for weight, age in zip(weights, ages, strict=True)]
        return less, min(due, now + config.window / STEPS)

    return weighed


def joined(host: Host, now: float) -> float:
    """When a host was first healthy, which may be now; before all time for one that is not yet, and whose weight is
    whole meanwhile, as in Envoy.
    """
    cell = host.cell
    if cell.seen_healthy is None:
        if host.availability != "healthy":
            return float("-inf")
        cell.seen_healthy = now
    return cell.seen_healthy


def _age(host: Host, now: float) -> float:
    return now - joined(host, now)


def as_configured(hosts: Sequence[Host], now: float) -> tuple[Sequence[float], float]:
    """The endpoints' own weights, which no time changes."""
    return [host.endpoint.weight for host in hosts], float("inf")
