"""Ring hash, to the same endpoint as Envoy's: same keys, same hash, same ring size, same lookup.

Source: `envoy.extensions.load_balancing_policies.ring_hash.v3` and the ring built by Envoy 1.40.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from ipaddress import ip_address
from math import ceil

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, Rng
from meshlib.balancing.hashing import hash_function
from meshlib.model.lb import RingHash


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


def random_hash(rng: Rng) -> int:
    """A hash for a request that has none."""
    return int(rng.random() * 2**64)


def ring_hash(policy: RingHash, hosts: Sequence[Host], shares: Sequence[float]) -> Balancer:
    """The ring for hosts whose shares of the load add up to 1.

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
    return Ring(hashes, owners)


def ring_entries(policy: RingHash, hosts: int) -> int:
    """About how many entries the ring for so many hosts has."""
    return min(max(policy.minimum_ring_size, hosts), policy.maximum_ring_size)


def hash_key(host: Host, use_hostname: bool) -> bytes:
    """What stands for the host on the ring: `hash_key` of its metadata, else its hostname when asked, else its address.

    Envoy hashes the empty name of a host without hostname, which gives all of them one place; we take the address.
    """
    for name, value in host.metadata:
        if name == "hash_key" and isinstance(value, str) and value:
            return value.encode()
    if use_hostname and host.endpoint.hostname:
        return host.endpoint.hostname.encode()
    return _address_key(host).encode()


def _address_key(host: Host) -> str:
    """The address as Envoy prints it: IPv6 in its short form, a unix socket as its path."""
    address = host.endpoint.address
    if address.path:
        return address.path
    if ":" not in address.host:
        return host.address
    try:
        return f"[{ip_address(address.host)}]:{address.port}"
    except ValueError:
        return host.address
