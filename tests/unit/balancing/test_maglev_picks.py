"""Maglev's table, and bounded loads over it and over a ring."""

import random
from collections import Counter

import pytest

from meshlib.balancing.base import Host
from meshlib.balancing.bounded_load import BoundedLoad, mersenne_twister, shuffled
from meshlib.balancing.maglev import MaglevTable, maglev, maglev_entries
from meshlib.model.endpoint import Locality
from meshlib.model.lb import Maglev, RingHash
from meshlib.state.cells import ClusterState
from parts.balancing import Bench, address, assignment, endpoint, flat, group


def reference(keys: list[bytes], shares: list[float], size: int) -> list[int]:
    """Listing 1 of the paper word for word, with Envoy's weights."""
    from xxhash import xxh64_intdigest

    offset = [xxh64_intdigest(key) % size for key in keys]
    skip = [xxh64_intdigest(key, 1) % (size - 1) + 1 for key in keys]
    turn, target = [0] * len(keys), [0.0] * len(keys)
    entry = [-1] * size
    filled = iteration = 0
    while True:
        iteration += 1
        for i in range(len(keys)):
            if iteration * shares[i] < target[i]:
                continue
            target[i] += max(shares)
            while entry[(offset[i] + turn[i] * skip[i]) % size] >= 0:
                turn[i] += 1
            entry[(offset[i] + turn[i] * skip[i]) % size] = i
            turn[i] += 1
            filled += 1
            if filled == size:
                return entry


@pytest.mark.parametrize("size", [2, 3, 11, 251, 1009])
def test_the_table_is_the_papers(size: int) -> None:
    rng = random.Random(size)
    for count in (1, 2, 3, 10, 40):
        keys = sorted(f"10.0.0.{number}:80".encode() for number in range(count))
        weights = [rng.choice((1, 1, 2, 7)) for _ in keys]
        shares = [weight / sum(weights) for weight in weights]
        assert list(maglev_entries(keys, shares, size)) == reference(keys, shares, size), (size, count)


def test_many_hosts_have_wider_entries() -> None:
    keys = sorted(str(number).encode() for number in range(0x10000))
    entries = maglev_entries(keys, [1 / len(keys)] * len(keys), 131_071)
    assert entries.itemsize == 4
    assert len(set(entries)) == len(keys)


def hosts_of(count: int, state: ClusterState) -> list[Host]:
    return [
        Host(found, state.endpoint(address(number)), address(number), Locality(), 0)
        for number, found in ((number, endpoint(number)) for number in range(count))
    ]


def test_equal_hosts_have_nearly_equal_parts_of_the_table() -> None:
    table = maglev(Maglev(), hosts_of(10, ClusterState("c")), [0.1] * 10, ClusterState("c"))
    assert isinstance(table, MaglevTable)
    parts = Counter(table.pick(number, random.Random(0)) for number in range(len(table)))
    assert max(parts.values()) - min(parts.values()) <= 1


def test_a_cluster_is_balanced_by_its_table() -> None:
    weighted = assignment(group([endpoint(0, 3), endpoint(1, 1)]))
    bench = Bench(weighted, lb_policy=Maglev(1009))
    counts = Counter(bench.pick(number) for number in range(1009))
    assert counts[address(0)] / 1009 == pytest.approx(0.75, abs=0.002)
    assert {bench.pick(7) for _ in range(5)} == {bench.pick(7 + 1009)}
    assert len({bench.pick(None) for _ in range(50)}) == 2  # without a hash it is chance


def test_the_table_is_made_anew_when_a_host_is_ejected_and_the_others_keep_most_of_it() -> None:
    bench = Bench(flat(10), lb_policy=Maglev(251))
    before = [bench.pick(number) for number in range(251)]
    bench.eject(address(3))
    after = [bench.pick(number) for number in range(251)]
    assert address(3) not in after
    moved = sum(old != new for old, new in zip(before, after, strict=True) if old != address(3))
    assert moved < 251 * 0.15
    bench.restore(address(3))
    assert [bench.pick(number) for number in range(251)] == before


# ---------------------------------------------------------------------------------------- bounded loads


def test_the_generator_is_the_standards() -> None:
    words = mersenne_twister(5489)
    found = [next(words) for _ in range(10_000)]
    assert found[-1] == 4_123_659_995  # what C++ says the 10 000th number of a default std::mt19937 is


def test_the_order_of_others_is_a_permutation_that_the_hash_alone_decides() -> None:
    for size in (1, 2, 7, 100):
        order = list(shuffled(size, 12345))
        assert sorted(order) == list(range(size))
        assert order == list(shuffled(size, 12345))
    assert list(shuffled(100, 1)) != list(shuffled(100, 2))


@pytest.mark.parametrize("policy", [RingHash(hash_balance_factor=150), Maglev(251, hash_balance_factor=150)])
def test_no_host_has_more_than_its_bound(policy: RingHash | Maglev) -> None:
    """All requests have one hash and none ends: each host has at most 1.5 times the average, and none is refused."""
    bench = Bench(flat(5), lb_policy=policy)
    first = bench.pick(99)
    active: Counter[str | None] = Counter()
    for number in range(1, 61):
        picked = bench.pick(99)
        assert picked is not None
        active[picked] += 1
        bench.state.endpoint(picked).live[number] = None
        bench.state.default.requests[number] = None
        assert max(active.values()) <= 1.5 * (number + 1) / 5 + 2  # a bound is a whole number, and counts one more
    assert len(active) == 4
    assert active.most_common(1)[0][1] == active[first]


def test_below_its_bound_a_host_keeps_its_requests() -> None:
    bench = Bench(flat(5), lb_policy=Maglev(251, hash_balance_factor=100))
    plain = Bench(flat(5), lb_policy=Maglev(251))
    assert [bench.pick(number) for number in range(251)] == [plain.pick(number) for number in range(251)]
    assert isinstance(bench.balancer.view().balancer, BoundedLoad)  # type: ignore[union-attr]
