"""Maglev, to the same endpoint as Envoy's: same keys, same order, same permutations, same table.

Source: "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), listing 1, with Envoy's weights
(`envoy.extensions.load_balancing_policies.maglev.v3`) and the tables built by Envoy 1.40. Envoy has two
representations, of which it takes the smaller; what is in them is the same, and so is what is in ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, Rng
from meshlib.balancing.bounded_load import bounded_load
from meshlib.balancing.hash_key import hash_key
from meshlib.balancing.hashing import random_hash, seeded_xxhash
from meshlib.model.lb import Maglev
from meshlib.state.cells import ClusterState

ASKED_PER_ENTRY = 8  # hosts asked whether it is their turn, in the time an entry takes
_WORD = 2**64


class MaglevTable:
    """For each remainder of a hash by the table's size, the number of a host: 2 bytes (4 from 65 536 hosts)."""

    __slots__ = ("_entries", "_hosts", "_size")

    def __init__(self, entries: Sequence[int], hosts: Sequence[Host]) -> None:
        self._entries = entries
        self._hosts = tuple(hosts)
        self._size = len(entries)

    def __len__(self) -> int:
        return self._size

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The host of the hash (a random one without). `attempt` turns most of its bits, as Envoy's retries do."""
        if request_hash is None:
            request_hash = random_hash(rng)
        if attempt:
            request_hash ^= _WORD - attempt
        return self._hosts[self._entries[request_hash % self._size]]


def maglev(policy: Maglev, hosts: Sequence[Host], shares: Sequence[float], state: ClusterState) -> Balancer:
    """The table for hosts whose shares of the load add up to 1, with bounded loads if the policy says so."""
    if not hosts:
        return NO_HOSTS
    keys = [hash_key(host, policy.use_hostname_for_hashing) for host in hosts]
    order = sorted(range(len(hosts)), key=keys.__getitem__)
    entries = maglev_entries([keys[index] for index in order], [shares[index] for index in order], policy.table_size)
    table = MaglevTable(entries, [hosts[index] for index in order])
    return bounded_load(table, hosts, shares, policy.hash_balance_factor, state)


def table_entries(policy: Maglev, weights: Sequence[int]) -> int:
    """How many entries the table has, whatever the hosts, and what it costs to ask the light ones among them in each of
    the rounds that a heavy one needs.
    """
    rounds = policy.table_size * max(weights) // sum(weights)
    return max(policy.table_size, rounds * len(weights) // ASKED_PER_ENTRY)


def maglev_entries(keys: Sequence[bytes], shares: Sequence[float], size: int) -> array[int]:
    """The table for hosts in the order of their keys: entry → number of the host.

    Every host walks through the table on a path of its own, and takes the next free entry when it is its turn: in every
    round, or, with less than the largest share, in fewer of them in proportion.
    """
    first, second = seeded_xxhash(0), seeded_xxhash(1)
    at = [first(key) % size for key in keys]
    skips = [second(key) % (size - 1) + 1 for key in keys]
    entries = array("H" if len(keys) <= 0xFFFF else "I", bytes(size * (2 if len(keys) <= 0xFFFF else 4)))
    taken = bytearray(size)
    left = size
    for turns in _rounds(shares):
        for number in turns:
            place, skip = at[number], skips[number]
            while taken[place]:
                place += skip
                if place >= size:
                    place -= size
            taken[place] = 1
            entries[place] = number
            at[number] = place
            left -= 1
            if not left:
                return entries
    raise AssertionError("rounds have no end")


def _rounds(shares: Sequence[float]) -> Iterable[Iterable[int]]:
    """Who has a turn in each round; the floating point is Envoy's, operation by operation."""
    largest = max(shares)
    everybody = range(len(shares))
    if min(shares) == largest:
        while True:
            yield everybody
    targets = [0.0] * len(shares)
    number = 0
    while True:
        number += 1
        turns = [index for index in everybody if number * shares[index] >= targets[index]]
        for index in turns:
            targets[index] += largest
        yield turns
