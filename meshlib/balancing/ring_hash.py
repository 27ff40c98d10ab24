"""Ring hash, to the same endpoint as Envoy's: same keys, same hash, same ring size, same lookup.

Source: `envoy.extensions.load_balancing_policies.ring_hash.v3` and the ring built by Envoy 1.40.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, Rng
from meshlib.balancing.bounded_load import bounded_load
from meshlib.balancing.hash_key import hash_key
from meshlib.balancing.hashing import hash_function, random_hash
from meshlib.model.lb import RingHash
from meshlib.state.cells import ClusterState


class Ring:
    """Entries sorted by hash; a request goes to the first entry at or after its own hash, round the end to the first.

    An entry costs 16 bytes (an unsigned 64-bit hash and a reference).
    """

    __slots__ = ("_hashes", "_hosts")

    def __init__(self, hashes: Sequence[int], hosts: Sequence[Host]) -> None:
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        self._hashes = array("Q", [hashes[index] for index in order])
        self._hosts = [hosts[index] for index in order]

    def __len__(self) -> int:
        return len(self._hosts)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """The host of the hash (a random one without). `attempt` moves on by so many entries, as Envoy's retries do:
        often, but not always, to another host.
        """
        if request_hash is None:
            request_hash = random_hash(rng)
        position = bisect_left(self._hashes, request_hash)
        if position == len(self._hosts):
            position = 0
        if attempt:
            position = (position + attempt) % len(self._hosts)
        return self._hosts[position]


def ring_hash(policy: RingHash, hosts: Sequence[Host], shares: Sequence[float], state: ClusterState) -> Balancer:
    """The ring for hosts whose shares of the load add up to 1, with bounded loads if the policy says so.

    The ring is scaled so that the smallest share gets a whole number of entries and the ring at least the minimum
    size. Running sums carry the fractions of the others over to the next host, which makes the ring depend a little
    on the order of the hosts; floating point is Envoy's, operation by operation.
    """
    if not hosts:
        return NO_HOSTS
    digest = hash_function(policy.hash_function)
    smallest = min(shares)
    scale = min(ceil(smallest * policy.minimum_ring_size) / smallest, float(policy.maximum_ring_size))
    hashes: list[int] = []
    owners: list[Host] = []
    target = 0.0
    for host, share in zip(hosts, shares, strict=True):
        target += scale * share
        entries = max(0, ceil(target) - len(hashes))
        key = hash_key(host, policy.use_hostname_for_hashing)
        hashes.extend([digest(b"%s_%d" % (key, entry)) for entry in range(entries)])
        owners.extend([host] * entries)
    return bounded_load(Ring(hashes, owners), hosts, shares, policy.hash_balance_factor, state)


def ring_entries(policy: RingHash, weights: Sequence[int]) -> int:
    """About how many entries the ring for hosts of these weights has: the least of them gets one at least, so one light
    host among heavy ones makes it large.
    """
    smallest = min(weights) / sum(weights)
    return int(min(ceil(smallest * policy.minimum_ring_size) / smallest, policy.maximum_ring_size))
