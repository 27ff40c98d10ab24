"""Pick first: one endpoint for all requests, the first that can be reached (gRPC's `pick_first`, gRFC A62).

Envoy has no such policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balancing.base import Balancer, Host, OneHost, Rng
from meshlib.model.lb import PickFirst
from meshlib.model.outcome import Failure, Outcome

_UNREACHED = (Failure.CONNECT, Failure.CONNECT_TIMEOUT)


class FirstHost:
    """The first of the hosts that no connection has failed to; picks that are turned down, as a retry's on another
    host, go on to the next ones.

    As in gRPC a host that could not be reached is not returned to while the one after it can, and when none can be
    reached, all are tried again from the first. The hosts are those that can be used: an endpoint that is unhealthy or
    ejected is not among them.
    """

    __slots__ = ("_hosts", "_shuffle")

    def __init__(self, hosts: Sequence[Host], *, shuffle: bool) -> None:
        self._hosts = tuple(hosts)
        self._shuffle = shuffle

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The host that is in use, or that many after it."""
        if self._shuffle:
            self._hosts, self._shuffle = shuffled_once(self._hosts, rng), False
        hosts = self._hosts
        for place, host in enumerate(hosts):
            if not host.cell.unreached:
                return hosts[(place + attempt) % len(hosts)]
        for host in hosts:
            host.cell.unreached = False
        return hosts[attempt % len(hosts)]


def shuffled_once(hosts: Sequence[Host], rng: Rng) -> tuple[Host, ...]:
    """In an order that each client draws for itself, so that they do not all choose the same endpoint. Endpoints keep
    their place as long as they are there, and new ones come after them: an update, or the health of another endpoint,
    moves no request.
    """
    places = [host.cell.place for host in hosts]
    last = max((place for place in places if place is not None), default=0.0)
    for host, place in zip(hosts, places, strict=True):
        if place is None:
            host.cell.place = last + rng.random()
    return tuple(sorted(hosts, key=lambda host: host.cell.place or 0.0))


def pick_first(policy: PickFirst, hosts: Sequence[Host]) -> Balancer:
    """The first of these hosts, shuffled or not."""
    return FirstHost(hosts, shuffle=policy.shuffle_address_list) if len(hosts) > 1 else OneHost(hosts[0])


def reached(host: Host, outcome: Outcome) -> None:
    """Note whether a connection to the host failed. What fails on one that is there is for outlier detection."""
    if outcome.failure in _UNREACHED:
        host.cell.unreached = True
    elif outcome.failure is None and host.cell.unreached:
        host.cell.unreached = False
