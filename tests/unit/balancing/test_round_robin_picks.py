import threading
from collections import Counter

from meshlib.model.lb import RoundRobin, UnsupportedLbPolicy
from meshlib.model.metadata import EMPTY_STRUCT
from parts.balancing import Bench, FirstRng, address, assignment, endpoint, flat, group


def test_hosts_come_in_turn() -> None:
    bench = Bench(flat(3), lb_policy=RoundRobin())
    bench.rng = FirstRng()
    assert [bench.pick() for _ in range(7)] == [address(number) for number in (0, 1, 2, 0, 1, 2, 0)]


def test_the_first_host_is_random_so_that_clients_do_not_start_in_step() -> None:
    firsts = {Bench(flat(4), seed=seed).pick() for seed in range(40)}
    assert firsts == {address(number) for number in range(4)}


def test_weights_are_exact_over_a_period_and_spread_within_it() -> None:
    bench = Bench(assignment(group([endpoint(0, 5), endpoint(1, 1), endpoint(2, 1)])))
    order = [bench.pick() for _ in range(14)]
    assert Counter(order[:7]) == Counter(order[7:]) == {address(0): 5, address(1): 1, address(2): 1}
    longest = max(len(run) for run in "".join("a" if pick == address(0) else " " for pick in order).split())
    assert longest <= 3


def test_weights_with_a_common_divisor_have_the_short_period() -> None:
    bench = Bench(assignment(group([endpoint(0, 300), endpoint(1, 100)])))
    assert bench.picks(4) == {address(0): 3, address(1): 1}


def test_no_turn_is_lost_or_doubled_under_threads() -> None:
    bench = Bench(flat(10))
    bench.pick()
    results: list[Counter[str | None]] = []
    threads = [threading.Thread(target=lambda: results.append(bench.picks(5_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(results, Counter({bench.pick(): 0}))
    assert set(total.values()) == {4_000}


def test_an_unsupported_policy_is_round_robin() -> None:
    bench = Bench(flat(3), lb_policy=UnsupportedLbPolicy("envoy.fancy"))
    assert set(bench.picks(3).values()) == {1}


def test_no_assignment_and_no_endpoints_give_no_host() -> None:
    assert Bench(None).pick() is None
    assert Bench(assignment()).pick() is None
    assert Bench(assignment(group([]))).pick() is None


def test_endpoints_inline_in_the_cluster_are_used_without_an_assignment() -> None:
    assert Bench(None, load_assignment=flat(1)).pick() == address(0)


def test_an_address_that_comes_twice_counts_once() -> None:
    bench = Bench(assignment(group([endpoint(0), endpoint(0), endpoint(1)])))
    assert [host.address for host in bench.balancer.hosts] == [address(0), address(1)]


def test_a_tried_host_is_turned_down_as_often_as_allowed_then_taken() -> None:
    bench = Bench(flat(3))
    bench.rng = FirstRng()
    first, second = bench.balancer.hosts[:2]
    pick = bench.balancer.pick
    assert pick(None, EMPTY_STRUCT, bench.rng, (first,), 1) is second
    bench = Bench(flat(3))
    bench.rng = FirstRng()
    first, second, third = bench.balancer.hosts
    assert bench.balancer.pick(None, EMPTY_STRUCT, bench.rng, (first, second, third), 1) is second
    assert bench.balancer.pick(None, EMPTY_STRUCT, bench.rng, (third,), 0) is third
