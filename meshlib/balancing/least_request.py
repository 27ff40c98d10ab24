"""Least request: few active requests before many (`envoy.extensions.load_balancing_policies.least_request.v3`)."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from meshlib.balancing.base import Balancer, Host, OneHost, Rng
from meshlib.balancing.round_robin import equal_weights
from meshlib.balancing.slow_start import as_configured, warming
from meshlib.balancing.timed import Weigh, Weighed
from meshlib.model.lb import LeastRequest

Deadline = tuple[float, int, int]
GUESSES = 4  # hosts tried before a full scan
LONGEST = 1e300  # turns that requests in flight can cost a host, whatever the bias


class LeastOfChoices:
    """Equal weights: the least loaded of `choice_count` random hosts.

    The second is another than the first. Envoy may draw the same host twice, so that of ten hosts a slow one gets a
    hundredth of the requests however busy it is, which is the 99th percentile of all of them.

    Their requests in flight lie beside the hosts: of 10 000 hosts those that lose need not be fetched into the
    processor's cache.
    """

    __slots__ = ("_hosts", "_lives", "_more", "_size")

    def __init__(self, hosts: Sequence[Host], choice_count: int) -> None:
        self._hosts = tuple(hosts)
        self._lives = tuple(host.cell.live for host in hosts)
        self._size = len(hosts)
        self._more = range(choice_count - 2)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The best of the draw; the first drawn of equals."""
        lives, size, random = self._lives, self._size, rng.random
        best = int(random() * size)
        other = int(random() * (size - 1))
        if other >= best:
            other += 1
        active, load = len(lives[best]), len(lives[other])
        if load < active:
            best, active = other, load
        for _ in self._more:
            other = int(random() * size)
            load = len(lives[other])
            if load < active:
                best, active = other, load
        return self._hosts[best]


class LeastOfAll:
    """Equal weights, full scan: a random one of the least loaded hosts.

    A host without any request is one of them, whatever the others have, and those are equally likely to be guessed. So
    the scan, whose cost grows with the hosts, is needed only where few hosts are idle.
    """

    __slots__ = ("_hosts", "_lives", "_size")

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._lives = tuple(host.cell.live for host in hosts)
        self._size = len(hosts)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host than which no other has fewer requests."""
        hosts, size, random = self._hosts, self._size, rng.random
        for _ in range(GUESSES):
            host = hosts[int(random() * size)]
            if not host.cell.live:
                return host
        loads = list(map(len, self._lives))
        return hosts[_any_index(loads, min(loads), rng)]


def _any_index(loads: list[int], wanted: int, rng: Rng) -> int:
    """A random one of the places where `wanted` is: guessed where it is at many, else counted off."""
    size, ties = len(loads), loads.count(wanted)
    if ties * 16 > size:
        while loads[at := int(rng.random() * size)] != wanted:
            pass
        return at
    at = -1
    for _ in range(int(rng.random() * ties) + 1):
        at = loads.index(wanted, at + 1)
    return at


class WeightedLeastRequest:
    """Unequal weights: an earliest-deadline-first schedule whose weights are `weight / (active + 1) ** bias`.

    As in Envoy, a host's weight is read when it is picked, and counts for its next turn; of equal deadlines the one
    set first comes first. One pop and one push, each atomic; a thread that comes between them finds the other hosts.
    """

    __slots__ = ("_bias", "_heap", "_hosts", "_order", "weights")

    def __init__(self, hosts: Sequence[Host], bias: float, weights: Sequence[float]) -> None:
        self._hosts = tuple(hosts)
        self._bias = bias
        self._heap: list[Deadline] | None = None
        self._order = count()
        self.weights = weights

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The host whose turn it is."""
        heap = self._heap
        if heap is None:
            heap = self._heap = self._schedule(rng)
        try:
            now, _, index = heappop(heap)
        except IndexError:  # more threads between pop and push than there are hosts
            return self._hosts[int(rng.random() * len(self._hosts))]
        host = self._hosts[index]
        try:
            turns = (len(host.cell.live) + 1) ** self._bias
        except OverflowError:
            turns = LONGEST
        heappush(heap, (now + turns / self.weights[index], next(self._order), index))
        return host

    def restart(self) -> None:
        """Set all turns anew at the next pick."""
        self._heap = None

    def _schedule(self, rng: Rng) -> list[Deadline]:
        """First turns at a random point of each host's interval, so that clients do not start in step."""
        heap = [(rng.random() / weight, next(self._order), index) for index, weight in enumerate(self.weights)]
        heapify(heap)
        return heap


class WarmingLeastRequest(Weighed):
    """With slow start: by schedule while any host is new or the weights differ, as in Envoy, else by choices."""

    __slots__ = ("_choices", "_scheduled")

    def __init__(self, hosts: Sequence[Host], choices: Balancer, scheduled: WeightedLeastRequest, weigh: Weigh) -> None:
        self._choices = choices
        self._scheduled = scheduled
        super().__init__(hosts, weigh, scheduled.weights, choices if equal_weights(hosts) else scheduled)

    def reweigh(self, due: float) -> None:
        """Hosts in the schedule have their new weights from their next turn on. When the last one is no longer new, the
        turns are all set anew: with a weight of next to nothing the next one is a lifetime away.
        """
        weights = self._scheduled.weights = self.weights
        if due == inf:
            self._scheduled.restart()
        self._inner = self._choices if min(weights) == max(weights) else self._scheduled


def least_request(policy: LeastRequest, hosts: Sequence[Host]) -> Balancer:
    """The least request balancer for these hosts."""
    weights = [host.endpoint.weight for host in hosts]
    scheduled = WeightedLeastRequest(hosts, policy.active_request_bias, weights)
    equal = equal_weights(hosts)
    if not equal and policy.slow_start is None:
        return scheduled
    choices = _choices(policy, hosts)
    if policy.slow_start is None:
        return choices
    return WarmingLeastRequest(hosts, choices, scheduled, warming(policy.slow_start, as_configured))


def _choices(policy: LeastRequest, hosts: Sequence[Host]) -> Balancer:
    if len(hosts) == 1:
        return OneHost(hosts[0])
    return LeastOfAll(hosts) if policy.full_scan else LeastOfChoices(hosts, policy.choice_count)
