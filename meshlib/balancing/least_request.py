"""Least request: few active requests before many (`envoy.extensions.load_balancing_policies.least_request.v3`)."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.round_robin import equal_weights
from meshlib.model.lb import LeastRequest

Deadline = tuple[float, int, Host]


class LeastOfChoices:
    """Equal weights: the least loaded of `choice_count` random hosts (with replacement, as Envoy draws them)."""

    __slots__ = ("_again", "_hosts", "_size")

    def __init__(self, hosts: Sequence[Host], choice_count: int) -> None:
        self._hosts = tuple(hosts)
        self._size = len(hosts)
        self._again = range(choice_count - 1)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The best of the draw; the first drawn of equals."""
        hosts, size, random = self._hosts, self._size, rng.random
        best = hosts[int(random() * size)]
        active = len(best.cell.live)
        for _ in self._again:
            other = hosts[int(random() * size)]
            load = len(other.cell.live)
            if load < active:
                best, active = other, load
        return best


class WeightedLeastRequest:
    """Unequal weights: an earliest-deadline-first schedule whose weights are `weight / (active + 1) ** bias`.

    As in Envoy, a host's weight is read when it is picked, and counts for its next turn. One pop and one push, each
    atomic; a thread that comes between them finds the other hosts.
    """

    __slots__ = ("_bias", "_heap", "_hosts")

    def __init__(self, hosts: Sequence[Host], bias: float) -> None:
        self._hosts = tuple(hosts)
        self._bias = bias
        self._heap: list[Deadline] | None = None

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The host whose turn it is."""
        heap = self._heap
        if heap is None:
            heap = self._heap = self._schedule(rng)
        try:
            now, index, host = heappop(heap)
        except IndexError:  # more threads between pop and push than there are hosts
            return self._hosts[int(rng.random() * len(self._hosts))]
        weight = host.endpoint.weight / (len(host.cell.live) + 1) ** self._bias
        heappush(heap, (now + 1.0 / weight, index, host))
        return host

    def _schedule(self, rng: Rng) -> list[Deadline]:
        """First turns at a random point of each host's interval, so that clients do not start in step."""
        heap = [(rng.random() / host.weight, index, host) for index, host in enumerate(self._hosts)]
        heapify(heap)
        return heap


def least_request(policy: LeastRequest, hosts: Sequence[Host]) -> Balancer:
    """The least request balancer for these hosts."""
    if equal_weights(hosts):
        return LeastOfChoices(hosts, policy.choice_count)
    return WeightedLeastRequest(hosts, policy.active_request_bias)
