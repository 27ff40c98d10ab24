"""Random: every host equally likely. Envoy's random balancer ignores endpoint weights, and so does this one."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balancing.base import Balancer, Host, Rng


class RandomChoice:
    """A uniformly random host."""

    __slots__ = ("_hosts", "_size")

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._size = len(hosts)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """Any host."""
        return self._hosts[int(rng.random() * self._size)]


def random_choice(policy: object, hosts: Sequence[Host]) -> Balancer:
    """The random balancer for these hosts."""
    return RandomChoice(hosts)
