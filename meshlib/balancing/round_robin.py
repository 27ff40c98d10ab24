"""Round robin: every host in turn, in proportion to weights when they differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.stride import WeightedSequence


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

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._sequence = WeightedSequence([host.weight for host in hosts])

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The next host."""
        return self._hosts[self._sequence.next(rng)]


def equal_weights(hosts: Sequence[Host]) -> bool:
    """Whether weights make no difference among the hosts."""
    first = hosts[0].endpoint.weight
    return all(host.endpoint.weight == first for host in hosts)


def round_robin(policy: object, hosts: Sequence[Host]) -> Balancer:
    """The round robin balancer for these hosts."""
    return EqualRoundRobin(hosts) if equal_weights(hosts) else WeightedRoundRobin(hosts)
