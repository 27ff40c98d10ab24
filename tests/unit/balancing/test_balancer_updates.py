"""Updates keep what they do not change; views follow availability: at once in small sets, later in big ones."""

import pytest

from meshlib.balancing.cluster import SMALL
from meshlib.balancing.report import BalancerReport, HostReport, PriorityReport
from meshlib.model.endpoint import Locality
from meshlib.model.lb import LbSubsetConfig, Maglev, RingHash, RoundRobin, SubsetSelector, UnsupportedLbPolicy
from meshlib.model.metadata import Struct
from parts.balancing import Bench, address, assignment, endpoint, flat, group

BIG = SMALL + 88


def test_an_update_keeps_the_hosts_it_says_the_same_about() -> None:
    bench = Bench(flat(3))
    before = bench.balancer.hosts
    after = bench.update(assignment(group([endpoint(0), endpoint(1, weight=2), endpoint(3)]))).hosts
    assert after[0] is before[0]
    assert after[1] is not before[1]
    assert after[1].cell is before[1].cell
    assert [host.address for host in after] == [address(0), address(1), address(3)]


def test_a_host_that_moves_to_another_locality_or_priority_is_new() -> None:
    bench = Bench(assignment(group([endpoint(0), endpoint(1)], "a")))
    before = bench.balancer.hosts
    after = bench.update(assignment(group([endpoint(0)], "b"), group([endpoint(1)], "a", priority=1))).hosts
    assert after[0] is not before[0]
    assert after[1] is not before[1]


def test_a_host_whose_cell_was_forgotten_gets_the_new_cell() -> None:
    bench = Bench(flat(1))
    bench.state.endpoints.clear()
    host = bench.update(flat(1)).hosts[0]
    assert host.cell is bench.state.endpoint(address(0))


def test_round_robin_goes_on_with_its_turn_when_the_hosts_stay() -> None:
    bench = Bench(flat(5))
    order = [bench.pick() for _ in range(3)]
    bench.update(flat(5))
    order += [bench.pick() for _ in range(2)]
    assert set(order) == set(map(address, range(5)))


def test_a_ring_is_kept_when_its_hosts_stay_and_made_anew_when_the_policy_changes() -> None:
    bench = Bench(flat(5), lb_policy=RingHash())
    ring = bench.balancer._compiled.whole
    assert ring is not None
    kept = bench.update(flat(5))._compiled.whole
    assert kept is not None
    assert kept.balancer is ring.balancer
    bench.cluster = Bench(None, lb_policy=RingHash(minimum_ring_size=2048)).cluster
    changed = bench.update(flat(5))._compiled.whole
    assert changed is not None
    assert changed.balancer is not ring.balancer


def test_a_subset_untouched_by_an_update_is_kept() -> None:
    subsets = LbSubsetConfig((SubsetSelector(("v",)),))
    bench = Bench(assignment(group([endpoint(n, v=str(n % 2)) for n in range(6)])), subsets=subsets)
    even, odd = Struct.of({"v": "0"}), Struct.of({"v": "1"})
    before = [bench.balancer._compiled.view(criteria) for criteria in (even, odd)]
    bench.update(assignment(group([endpoint(n, v=str(n % 2)) for n in range(7)])))
    after = [bench.balancer._compiled.view(criteria) for criteria in (even, odd)]
    same = [old and new and old.balancer is new.balancer for old, new in zip(before, after, strict=True)]
    assert same == [False, True]


def test_a_small_set_follows_an_ejection_with_the_next_pick() -> None:
    bench = Bench(flat(SMALL))
    bench.eject(address(7))
    assert address(7) not in bench.picks(SMALL * 2)
    assert not bench.balancer.needs_refresh


def test_a_big_set_skips_ejected_hosts_and_asks_to_be_refreshed() -> None:
    bench = Bench(flat(BIG))
    view = bench.balancer._compiled
    bench.eject(address(7))
    assert address(7) not in bench.picks(BIG - 1)
    assert bench.balancer.needs_refresh
    assert bench.balancer._compiled is view
    bench.balancer.refresh()
    assert not bench.balancer.needs_refresh
    assert bench.balancer._compiled is not view
    assert bench.picks(BIG - 1) == {address(number): 1 for number in range(BIG) if number != 7}


def test_a_big_set_nobody_refreshes_does_so_after_as_many_picks_as_hosts() -> None:
    bench = Bench(flat(BIG))
    bench.eject(address(7))
    bench.balancer.refresh()
    bench.restore(address(7))
    bench.picks(BIG)
    assert bench.balancer.needs_refresh
    bench.pick()
    assert not bench.balancer.needs_refresh
    assert address(7) in bench.picks(BIG)


def test_a_big_set_that_lost_most_of_its_hosts_goes_into_panic_without_waiting() -> None:
    bench = Bench(flat(BIG))
    bench.eject(*map(address, range(BIG)))
    assert bench.pick() is not None
    assert bench.balancer.in_panic


def test_a_big_hash_table_moves_along_from_an_ejected_host() -> None:
    bench = Bench(flat(BIG), lb_policy=RingHash())
    first = bench.pick(99)
    assert first is not None
    bench.eject(first)
    assert bench.pick(99) not in (first, None)
    assert bench.balancer.needs_refresh


def test_a_large_ring_of_few_hosts_is_not_made_within_a_pick() -> None:
    bench = Bench(flat(10), lb_policy=RingHash(minimum_ring_size=4 * SMALL + 4))
    bench.eject(address(3))
    assert address(3) not in bench.picks(SMALL)
    assert bench.balancer.needs_refresh


@pytest.mark.parametrize("policy", [RingHash(), Maglev(table_size=1009)])
def test_a_table_that_weights_make_dear_is_not_made_within_a_pick(policy: RingHash | Maglev) -> None:
    """One light host among heavy ones makes a ring large; one heavy host among light ones a Maglev table slow."""
    light = isinstance(policy, RingHash)
    weights = [1 if light else 1000, *([10_000] * 2 if light else [1] * 400)]
    bench = Bench(assignment(group([endpoint(n, weight) for n, weight in enumerate(weights)])), lb_policy=policy)
    bench.eject(address(1))
    assert address(1) not in bench.picks(SMALL)
    assert bench.balancer.needs_refresh


def test_a_tried_host_is_turned_down_in_an_old_view_too() -> None:
    bench = Bench(flat(BIG), lb_policy=RingHash())
    bench.eject(address(0))
    criteria = Struct()
    first = bench.balancer.pick(99, criteria, bench.rng)
    assert first is not None
    assert bench.balancer.pick(99, criteria, bench.rng, (first,), 3) is not first


def test_describe_says_what_a_request_is_balanced_over() -> None:
    bench = Bench(
        assignment(
            group([endpoint(0, 2), endpoint(1, health="DEGRADED")], "a"),
            group([endpoint(2, health="DRAINING")], priority=1),
        ),
        lb_policy=UnsupportedLbPolicy("envoy.fancy"),
    )
    bench.eject(address(1))
    bench.state.endpoint(address(0)).live["request"] = None
    a = Locality(zone="a")
    assert bench.balancer.describe() == BalancerReport(
        "RoundRobin",
        (
            PriorityReport(
                0,
                100,
                0,
                False,
                (
                    HostReport(address(0), a, 2, "HEALTHY", False, False, "healthy", 1),
                    HostReport(address(1), a, 1, "DEGRADED", True, False, "unhealthy", 0),
                ),
            ),
            PriorityReport(
                1, 0, 0, True, (HostReport(address(2), Locality(), 1, "DRAINING", False, False, "unhealthy", 0),)
            ),
        ),
    )


def test_describe_a_subset_and_no_subset() -> None:
    subsets = LbSubsetConfig((SubsetSelector(("v",)),))
    bench = Bench(assignment(group([endpoint(n, v=str(n % 2)) for n in range(4)])), subsets=subsets)
    (priority,) = bench.balancer.describe(Struct.of({"v": "1"})).priorities
    assert [host.address for host in priority.hosts] == [address(1), address(3)]
    assert bench.balancer.describe() == BalancerReport("RoundRobin", ())


def test_describe_of_an_unknown_assignment_is_empty() -> None:
    assert Bench(None, lb_policy=RoundRobin()).balancer.describe() == BalancerReport("RoundRobin", ())
