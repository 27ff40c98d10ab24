"""Pick first: one endpoint for all requests (gRPC's `pick_first`, gRFC A62). Envoy has no such policy."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balancing.base import Balancer, Host, OneHost, Rng
from meshlib.model.lb import PickFirst


class FirstHost:
    """The first of the hosts; picks that are turned down, as a retry's on another host, go on to the next ones.

    The hosts are those that can be used: an endpoint that is unhealthy or ejected is not among them.
    """

    __slots__ = ("_hosts",)

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The first host, or that many after it."""
        return self._hosts[attempt % len(self._hosts)]


class ShuffledFirst:
    """The same from hosts that are shuffled once, so that clients do not all choose the same one."""

    __slots__ = ("_hosts", "_order")

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._order: tuple[Host, ...] = ()

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The first host of the shuffled ones."""
        order = self._order
        if not order:
            order = self._order = tuple(sorted(self._hosts, key=lambda _: rng.random()))
        return order[attempt % len(order)]


def pick_first(policy: PickFirst, hosts: Sequence[Host]) -> Balancer:
    """The first of these hosts, shuffled or not."""
    if len(hosts) == 1:
        return OneHost(hosts[0])
    return ShuffledFirst(hosts) if policy.shuffle_address_list else FirstHost(hosts)
