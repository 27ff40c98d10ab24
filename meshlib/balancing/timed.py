"""Balancers that go by the time as well. A pick does not ask for it: the balancer is told, when it asked to be.

Everything else pays for this only one comparison a pick, with the time at which the first of a cluster's balancers
wants to hear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.balancing.base import Balancer, Host, Rng

INLINE = 512  # hosts that are weighed anew within a pick; more are left to `ClusterBalancer.refresh`

Weigh = Callable[[Sequence[Host], float], "tuple[Sequence[float], float]"]
"""(Hosts, now) to their weights, and the time at which these change next (infinity: never by time alone)."""

Build = Callable[[Sequence[Host], Sequence[float]], Balancer]


class Timed:
    """A balancer that is told the time. `heavy`: telling it takes longer than a pick may."""

    __slots__ = ()

    heavy = False

    def tick(self, now: float) -> float:
        """It is `now` (monotonic seconds). Returns when to tell again."""
        raise NotImplementedError


class Weighed(Timed):
    """A balancer whose hosts' weights go by the time, and that has another do the picking. Picks from other threads
    meet the one of the old weights or the one of the new, both whole.
    """

    __slots__ = ("_hosts", "_inner", "_weigh", "weights")

    def __init__(self, hosts: Sequence[Host], weigh: Weigh, weights: Sequence[float], inner: Balancer) -> None:
        self._hosts = tuple(hosts)
        self._weigh = weigh
        self._inner = inner
        self.weights = weights

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        """Weighing takes time in proportion to the hosts."""
        return len(self._hosts) > INLINE

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """What the balancer of the weights of now picks."""
        return self._inner.pick(request_hash, rng, attempt)

    def tick(self, now: float) -> float:
        """Weigh the hosts."""
        weights, due = self._weigh(self._hosts, now)
        if weights != self.weights:
            self.weights = weights
            self.reweigh(due)
        return due

    def reweigh(self, due: float) -> None:
        """The weights have changed, and do so next at `due`."""
        raise NotImplementedError


class Reweighed(Weighed):
    """A balancer made anew whenever its hosts' weights have changed; until it is told the time they are `weights`."""

    __slots__ = ("_build",)

    def __init__(self, hosts: Sequence[Host], weigh: Weigh, build: Build, weights: Sequence[float]) -> None:
        self._build = build
        super().__init__(hosts, weigh, weights, build(hosts, weights))

    def reweigh(self, due: float) -> None:
        """Make it anew."""
        self._inner = self._build(self._hosts, self.weights)
