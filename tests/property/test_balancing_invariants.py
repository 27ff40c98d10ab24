"""What must hold for any weights, health and hosts."""

import random
from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balancing.priority import HostCounts, priority_loads
from meshlib.balancing.stride import WeightedSequence
from meshlib.model.lb import LeastRequest, Random, RingHash, RoundRobin
from parts.balancing import Bench, FirstRng, address, assignment, endpoint, group

WEIGHTS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
LARGE = st.lists(st.integers(1, 900), min_size=2, max_size=8)  # mostly periods too long to be written out
POLICIES = st.sampled_from([RoundRobin(), LeastRequest(), LeastRequest(choice_count=4), Random(), RingHash()])
HEALTH = st.sampled_from(["HEALTHY", "UNKNOWN", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"])
HOSTS = st.lists(st.tuples(st.integers(1, 20), HEALTH, st.booleans(), st.integers(0, 2)), min_size=1, max_size=14)


def made(hosts: list[tuple[int, str, bool, int]], **cluster: object) -> Bench:
    groups = [
        group(
            [endpoint(n, weight, health) for n, (weight, health, _, p) in enumerate(hosts) if p == priority],
            priority=priority,
        )
        for priority in range(3)
    ]
    bench = Bench(assignment(*groups), **cluster)
    bench.eject(*(address(n) for n, (_, _, ejected, _) in enumerate(hosts) if ejected))
    return bench


@settings(deadline=None)
@given(
    WEIGHTS | st.lists(st.integers(1, 900), min_size=1, max_size=8),
    st.integers(1, 3),
    st.floats(0, 1, exclude_max=True),
)
def test_a_weighted_sequence_is_exact_over_every_period(weights: list[int], periods: int, start: float) -> None:
    class Rng:
        def random(self) -> float:
            return start

    sequence, rng = WeightedSequence(weights), Rng()
    for _ in range(periods):
        drawn = Counter(sequence.next(rng) for _ in range(sequence.period))
        assert all(drawn[a] * weights[b] == drawn[b] * weights[a] for a, b in pairwise(range(len(weights))))
        assert set(drawn) == set(range(len(weights)))


@settings(deadline=None)
@given(WEIGHTS | LARGE)
def test_any_stretch_of_a_weighted_sequence_is_close_to_its_proportions(weights: list[int]) -> None:
    sequence, rng = WeightedSequence(weights), FirstRng()
    total, drawn = sum(weights), Counter[int]()
    for picks in range(1, min(sequence.period, 500) + 1):
        drawn[sequence.next(rng)] += 1
        assert all(abs(drawn[n] - picks * weight / total) < 5 for n, weight in enumerate(weights))


@settings(max_examples=150, deadline=None)
@given(HOSTS, POLICIES, st.integers(0, 2**64 - 1))
def test_outside_panic_only_hosts_that_may_be_used_are_picked(hosts, policy, seed) -> None:  # type: ignore[no-untyped-def]
    bench = made(hosts, lb_policy=policy)
    picks = set(bench.picks(60)) | {bench.pick(seed)}
    usable = {
        address(n)
        for n, (_, health, ejected, _) in enumerate(hosts)
        if not ejected and health in ("HEALTHY", "UNKNOWN", "DEGRADED")
    }
    assert None not in picks, "the default panic threshold leaves no request without a host"
    if not bench.balancer.in_panic:
        assert picks <= usable


@settings(deadline=None)
@given(HOSTS, POLICIES, st.integers(0, 2**64 - 1))
def test_with_panic_off_an_unusable_host_is_never_picked(hosts, policy, value) -> None:  # type: ignore[no-untyped-def]
    bench = made(hosts, lb_policy=policy, healthy_panic_threshold=0)
    picks = set(bench.picks(40)) | {bench.pick(value)}
    usable = {
        address(n)
        for n, (_, health, ejected, _) in enumerate(hosts)
        if not ejected and health in ("HEALTHY", "UNKNOWN", "DEGRADED")
    }
    assert picks <= (usable or {None})


COUNTS = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)).map(
    lambda parts: HostCounts(sum(parts), parts[0], parts[1])
)


@given(st.lists(COUNTS, min_size=1, max_size=6), st.integers(100, 300), st.floats(0, 100))
def test_priority_loads_add_up_to_100_and_go_where_hosts_are(
    counts: list[HostCounts], factor: int, threshold: float
) -> None:
    loads = priority_loads(counts, factor, threshold)
    assert sum(load.healthy + load.degraded for load in loads) == 100
    if any(count.healthy + count.degraded for count in counts):
        for count, load in zip(counts, loads, strict=True):
            assert load.healthy == 0 or count.healthy or load.panic
            assert load.degraded == 0 or count.degraded


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(0, 39), st.integers(0, 2**32))
def test_removing_a_host_from_a_ring_moves_only_its_own_requests(count: int, removed: int, seed: int) -> None:
    # One entry a host at least, and as many for n hosts as for n - 1: the rings differ only by the host removed.
    removed %= count
    policy = RingHash(minimum_ring_size=1, maximum_ring_size=10_000)
    bench = Bench(assignment(group(endpoint(n) for n in range(count))), lb_policy=policy)
    values = [random.Random(seed).getrandbits(64) for _ in range(300)]
    before = [bench.pick(value) for value in values]
    bench.update(assignment(group(endpoint(n) for n in range(count) if n != removed)))
    after = [bench.pick(value) for value in values]
    assert all(new == old for old, new in zip(before, after, strict=True) if old != address(removed))
    assert address(removed) not in after


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 60), st.integers(0, 2**32))
def test_adding_a_host_to_a_ring_of_the_default_size_moves_little(count: int, seed: int) -> None:
    bench = Bench(assignment(group(endpoint(n) for n in range(count))), lb_policy=RingHash())
    source = random.Random(seed)
    values = [source.getrandbits(64) for _ in range(1_000)]
    before = [bench.pick(value) for value in values]
    bench.update(assignment(group(endpoint(n) for n in range(count + 1))))
    moved = sum(old != new for old, new in zip(before, map(bench.pick, values), strict=True))
    # Ideal: 1 / (n + 1). The number of entries a host has changes with n, which costs about as much again.
    assert moved / 1_000 < 3 / count + 0.05
