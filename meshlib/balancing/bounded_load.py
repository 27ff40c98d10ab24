"""Consistent hashing with bounded loads: an endpoint at its limit hands a request on, to the same others each time.

Source: https://arxiv.org/abs/1608.01350 (the limit) and https://arxiv.org/abs/1908.08762 (jumps at random instead of
the next on the ring), as Envoy 1.40 does both, for ring hash and Maglev alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.hashing import random_hash
from meshlib.state.cells import ClusterState

_WORD = 0xFFFFFFFF


class BoundedLoad:
    """A hash table whose hosts have at most `factor` percent of their share of the cluster's active requests.

    A pick that finds its host below the limit costs one look-up more; the others cost as many as they find full.
    """

    __slots__ = ("_factor", "_hosts", "_share_of", "_shares", "_state", "_table")

    def __init__(
        self, table: Balancer, hosts: Sequence[Host], shares: Sequence[float], factor: int, state: ClusterState
    ) -> None:
        self._table = table
        self._hosts = tuple(hosts)
        self._shares = tuple(shares)
        self._share_of = dict(zip(hosts, shares, strict=True))
        self._factor = factor
        self._state = state

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The host of the hash while it is below its limit, else the first that is, in an order that the hash alone
        decides; when all are full, the one least above its limit.
        """
        if request_hash is None:
            request_hash = random_hash(rng)
        host = self._table.pick(request_hash, rng, attempt)
        if host is None:
            return None
        slots = self._slots()
        least = overload(host, self._share_of[host], slots)
        return host if least <= 1.0 else self._another(request_hash, host, least, slots)

    def _slots(self) -> int:
        """What the hosts may have together, counting the request to be sent."""
        state = self._state
        active = len(state.default.requests) + len(state.high.requests)
        return (((active + 1) * self._factor + 99) & _WORD) // 100

    def _another(self, request_hash: int, full: Host, least: float, slots: int) -> Host:
        best = full
        for index in shuffled(len(self._hosts), request_hash):
            host = self._hosts[index]
            if host is full:
                continue
            load = overload(host, self._shares[index], slots)
            if load <= 1.0:
                return host
            if load < least:
                best, least = host, load
        return best


def bounded_load(
    table: Balancer, hosts: Sequence[Host], shares: Sequence[float], factor: int, state: ClusterState
) -> Balancer:
    """The table with bounded loads, or as it is for factor 0."""
    return BoundedLoad(table, hosts, shares, factor, state) if factor else table


def overload(host: Host, share: float, slots: int) -> float:
    """The host's active requests over its part of the slots, which is at least one."""
    return len(host.cell.live) / max(ceil(slots * share), 1)


def shuffled(size: int, seed: int) -> Iterator[int]:
    """0..size-1 in the order of Envoy's seeded shuffle; costs are for what is taken."""
    moved: dict[int, int] = {}
    words = mersenne_twister(seed)
    for position in range(size):
        other = position + _below(size - position, words)
        chosen = moved.get(other, other)
        moved[other] = moved.get(position, position)
        yield chosen


def _below(limit: int, words: Iterator[int]) -> int:
    """A number below the limit, all equally likely."""
    width = 2**32 // limit
    for word in words:
        if word // width < limit:
            return word // width
    raise AssertionError("the generator has no end")


def mersenne_twister(seed: int) -> Iterator[int]:
    """MT19937 seeded with one number, as C++'s `std::mt19937`: Python's own generator seeds otherwise.

    A number costs the part of the seeding that it needs: the first 398 of 624 words, and seldom more is taken.
    """
    state = [seed & _WORD]
    word = state[0]
    position = 0
    while True:
        for index in range(len(state), min(position + 398, 624)):
            word = (1812433253 * (word ^ word >> 30) + index) & _WORD
            state.append(word)
        mixed = (state[position] & 0x80000000) | (state[(position + 1) % 624] & 0x7FFFFFFF)
        found = state[(position + 397) % 624] ^ mixed >> 1 ^ (0x9908B0DF if mixed & 1 else 0)
        state[position] = found
        position = (position + 1) % 624
        found ^= found >> 11
        found ^= found << 7 & 0x9D2C5680
        found ^= found << 15 & 0xEFC60000
        yield (found ^ found >> 18) & _WORD
