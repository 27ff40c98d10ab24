"""Random subsetting (gRFC A68) and pick first."""

from collections import Counter
from dataclasses import replace

import pytest

from meshlib import Mesh
from meshlib.balancing.subsetting import subset_of
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.lb import PickFirst, RandomSubsetting
from meshlib.sources.static import static_cluster
from parts.balancing import Bench, address, assignment, endpoint, flat, group


def addresses(found: ClusterLoadAssignment) -> set[str]:
    return {str(one.address) for locality in found.localities for one in locality.endpoints}


def test_a_subset_has_its_size_and_the_same_endpoints_again() -> None:
    policy = RandomSubsetting(7)
    found = subset_of(flat(50), policy, seed=1)
    assert len(addresses(found)) == 7
    assert found == subset_of(flat(50), policy, seed=1)
    assert addresses(found) != addresses(subset_of(flat(50), policy, seed=2))


def test_one_endpoint_less_or_more_changes_one_place_at_most() -> None:
    policy, whole = RandomSubsetting(7), flat(50)
    for seed in range(20):
        before = addresses(subset_of(whole, policy, seed))
        for gone in range(0, 50, 7):
            (locality,) = whole.localities
            rest = tuple(one for one in locality.endpoints if str(one.address) != address(gone))
            after = addresses(subset_of(replace(whole, localities=(replace(locality, endpoints=rest),)), policy, seed))
            assert len(before - after) == (address(gone) in before)


def test_over_many_processes_every_endpoint_is_used_by_about_as_many() -> None:
    used: Counter[str] = Counter()
    for seed in range(1000):
        used.update(addresses(subset_of(flat(20), RandomSubsetting(5), seed)))
    assert len(used) == 20
    assert min(used.values()) > 190
    assert max(used.values()) < 310  # 250 on average, a standard deviation of 14


def test_a_subset_is_of_each_priority_or_of_each_of_its_localities() -> None:
    groups = assignment(
        group((endpoint(number) for number in range(10)), "x"),
        group((endpoint(number) for number in range(10, 20)), "y"),
        group((endpoint(number) for number in range(20, 30)), "x", priority=1),
    )
    found = subset_of(groups, RandomSubsetting(4), seed=3)
    sizes = [len(locality.endpoints) for locality in found.localities]
    assert (sizes[0] + sizes[1], sizes[2]) == (4, 4)
    found = subset_of(groups, RandomSubsetting(4, per_locality=True), seed=3)
    assert [len(locality.endpoints) for locality in found.localities] == [4, 4, 4]


def test_endpoints_that_cannot_serve_take_no_place() -> None:
    half = assignment(group(endpoint(n, health="HEALTHY" if n < 10 else "UNHEALTHY") for n in range(20)))
    assert addresses(subset_of(half, RandomSubsetting(5), seed=1)) <= {address(number) for number in range(10)}
    assert subset_of(half, RandomSubsetting(10), seed=1) == half  # no more can serve than there are places


def test_a_cluster_knows_of_its_subset_only_and_keeps_an_ejected_endpoint_in_it() -> None:
    bench = Bench(flat(30), subsetting=RandomSubsetting(3))
    used = {host.address for host in bench.balancer.hosts}
    assert set(bench.picks(60)) == used
    assert len(used) == 3
    bench.eject(min(used))
    assert set(bench.picks(60)) == used - {min(used)}


# ---------------------------------------------------------------------------------------- pick first


def test_pick_first_takes_the_first_that_can_be_used() -> None:
    mixed = assignment(group([endpoint(0, health="UNHEALTHY"), *(endpoint(number) for number in range(1, 5))]))
    bench = Bench(mixed, lb_policy=PickFirst())
    assert set(bench.picks(9)) == {address(1)}
    bench.eject(address(1))
    assert set(bench.picks(9)) == {address(2)}
    (first,) = (host for host in bench.balancer.hosts if host.address == address(2))
    another = bench.balancer.pick(None, bench.cluster.metadata.namespace("x"), bench.rng, [first], 3)
    assert another is not None
    assert another.address == address(3)


@pytest.mark.parametrize("seed", range(3))
def test_pick_first_shuffles_once(seed: int) -> None:
    bench = Bench(flat(40), lb_policy=PickFirst(shuffle_address_list=True), seed=seed)
    assert len(bench.picks(20)) == 1
    firsts = {Bench(flat(40), lb_policy=PickFirst(shuffle_address_list=True), seed=s).pick() for s in range(10)}
    assert len(firsts) > 3


def test_every_mesh_has_a_subset_of_its_own() -> None:
    cluster = replace(static_cluster("c", [address(number) for number in range(40)]), subsetting=RandomSubsetting(3))
    subsets = set()
    for seed in (1, 1, 2, 3):
        with Mesh.static({"c": cluster}, seed=seed) as mesh:
            subsets.add(mesh.plan.clusters["c"].addresses)
    assert len(subsets) == 3
    assert {len(addresses) for addresses in subsets} == {3}


def test_an_address_that_comes_twice_takes_one_place() -> None:
    twice = assignment(group([endpoint(1), endpoint(2)], "a"), group([endpoint(n) for n in (1, 2, 3, 4)], "b"))
    for seed in range(12):
        found = subset_of(twice, RandomSubsetting(3), seed)
        assert len({each.address for part in found.localities for each in part.endpoints}) == 3
