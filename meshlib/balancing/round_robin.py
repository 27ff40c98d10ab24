"""Round robin: every host in turn, in proportion to weights when they differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.slow_start import as_configured, warming
from meshlib.balancing.stride import WeightedSequence
from meshlib.balancing.timed import Reweighed
from meshlib.model.lb import LbPolicy, RoundRobin

FINENESS = 65_535  # of weights that are not whole numbers: the largest becomes this (gRFC A58)


class EqualRoundRobin:
    """Hosts of equal weight. `next()` of an `itertools.count` is atomic, so no turn is lost or doubled."""

    __slots__ = ("_hosts", "_size", "_turn")

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._size = len(hosts)
        self._turn: count[int] | None = None

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The next host; the first pick starts at a random one, so that clients do not start in step."""
        turn = self._turn
        if turn is None:
            turn = self._turn = count(int(rng.random() * self._size))
        return self._hosts[next(turn) % self._size]


class WeightedRoundRobin:
    """Hosts of unequal weights."""

    __slots__ = ("_hosts", "_sequence")

    def __init__(self, hosts: Sequence[Host], weights: Sequence[int]) -> None:
        self._hosts = tuple(hosts)
        self._sequence = WeightedSequence(weights)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The next host."""
        return self._hosts[self._sequence.next(rng)]


def equal_weights(hosts: Sequence[Host]) -> bool:
    """Whether weights make no difference among the hosts."""
    first = hosts[0].endpoint.weight
    return all(host.endpoint.weight == first for host in hosts)


def by_weights(hosts: Sequence[Host], weights: Sequence[float]) -> Balancer:
    """Round robin by weights that may be any positive numbers."""
    if min(weights) == max(weights):
        return EqualRoundRobin(hosts)
    if all(isinstance(weight, int) for weight in weights):
        return WeightedRoundRobin(hosts, [int(weight) for weight in weights])
    scale = FINENESS / max(weights)
    return WeightedRoundRobin(hosts, [max(1, round(weight * scale)) for weight in weights])


def round_robin(policy: LbPolicy, hosts: Sequence[Host]) -> Balancer:
    """The round robin balancer for these hosts."""
    weights = [host.endpoint.weight for host in hosts]
    if isinstance(policy, RoundRobin) and policy.slow_start is not None:
        return Reweighed(hosts, warming(policy.slow_start, as_configured), by_weights, weights)
    return EqualRoundRobin(hosts) if equal_weights(hosts) else WeightedRoundRobin(hosts, weights)
