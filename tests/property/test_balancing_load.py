"""What must hold for balancers that go by weights and load, for any weights, loads and times."""

import random
import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balancing.client_side import take_in
from meshlib.balancing.round_robin import FINENESS, by_weights
from meshlib.balancing.slow_start import factor
from meshlib.model.lb import ClientSideWeightedRoundRobin, LbPolicy, LeastRequest, PeakEwma, RoundRobin, SlowStart
from meshlib.model.orca import LoadReport
from meshlib.state.latency import Latency
from parts.balancing import Bench, address, assignment, endpoint, flat, group

POSITIVE = st.floats(1e-3, 1e6)


@settings(deadline=None)
@given(st.lists(POSITIVE, min_size=2, max_size=12), st.integers(0, 2**32))
def test_shares_are_proportional_to_any_weights(weights: Sequence[float], seed: int) -> None:
    hosts = Bench(flat(len(weights))).balancer.hosts
    balancer, rng, picks = by_weights(hosts, list(weights)), random.Random(seed), 3_000
    counted = Counter(balancer.pick(None, rng) for _ in range(picks))
    heaviest, total = max(weights), sum(weights)
    for host, weight in zip(hosts, weights, strict=True):
        least = heaviest / FINENESS * len(weights) / total * picks  # what rounding may add
        assert abs(counted[host] - picks * weight / total) < 6 + least


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 2**32))
def test_a_full_scan_picks_none_but_the_least_loaded(loads: Sequence[int], seed: int) -> None:
    bench = Bench(flat(len(loads)), seed, lb_policy=LeastRequest(full_scan=True))
    for number, load in enumerate(loads):
        bench.state.endpoint(address(number)).live.update(dict.fromkeys(range(load)))
    least = {address(number) for number, load in enumerate(loads) if load == min(loads)}
    assert set(bench.picks(30)) <= least


SLOW_STARTS = st.builds(SlowStart, st.floats(0.01, 1e5), st.floats(0.1, 10.0), st.floats(0.0, 100.0))


@given(SLOW_STARTS, st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_slow_start_only_ever_gives_more(config: SlowStart, first: float, second: float) -> None:
    earlier, later = sorted((first, second))
    assert config.min_weight_percent / 100 <= factor(config, earlier) <= factor(config, later) <= 1.0
    assert factor(config, config.window) == 1.0


@given(st.lists(st.tuples(POSITIVE, st.floats(0.0, 100.0)), min_size=1, max_size=20), POSITIVE)
def test_a_latency_stays_between_the_shortest_and_the_longest_seen(
    samples: Sequence[tuple[float, float]], decay_time: float
) -> None:
    latency, now = Latency(), 0.0
    for seconds, later in samples:
        now += later
        latency.observe(seconds, now, decay_time)
    estimate = latency.estimate
    assert estimate is not None
    assert min(seconds for seconds, _ in samples) * 0.999 <= estimate.seconds <= max(seconds for seconds, _ in samples)
    assert estimate.seconds >= samples[-1][0] * 0.999
    assert estimate.at == now


REPORTS = st.builds(LoadReport, *[st.floats(-1.0, 10.0)] * 5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), REPORTS, st.floats(0.0, 60.0)), max_size=15), st.integers(0, 2**32))
def test_any_reports_leave_every_endpoint_with_a_share(
    reports: Sequence[tuple[int, LoadReport, float]], seed: int
) -> None:
    policy = ClientSideWeightedRoundRobin(blackout_period=1.0)
    bench, now = Bench(flat(4), seed, lb_policy=policy), 0.0
    for number, report, later in reports:
        now += later
        take_in(policy, bench.balancer.hosts[number], report, now)
        bench.balancer.tick(now)
        assert bench.pick() is not None
    loads = [host.cell.reported for host in bench.balancer.hosts]
    assert all(load is None or load.weight > 0 for load in loads)


POLICIES: list[LbPolicy] = [
    RoundRobin(SlowStart(60.0)),
    LeastRequest(full_scan=True),
    LeastRequest(slow_start=SlowStart(60.0)),
    ClientSideWeightedRoundRobin(),
    PeakEwma(),
]


@pytest.mark.parametrize("policy", [*POLICIES, RoundRobin(), LeastRequest()])
def test_eight_threads_and_a_clock_get_a_host_each_time(policy: LbPolicy) -> None:
    """Weights change while others pick; every pick has a host, and round robin loses no turn."""
    bench = Bench(assignment(group(endpoint(number, 1 + number % 3) for number in range(9))), lb_policy=policy)
    bench.balancer.begin(0.0)
    found: list[Counter[str | None]] = []
    done = threading.Event()

    def clock() -> None:
        now = 0.0
        while not done.is_set():
            now += 0.5
            bench.balancer.tick(now)

    threads = [threading.Thread(target=lambda: found.append(bench.picks(2_250))) for _ in range(8)]
    teller = threading.Thread(target=clock)
    teller.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    teller.join()
    total = sum(found, Counter[str | None]())
    assert sum(total.values()) == 18_000
    assert total[None] == 0
    if policy == RoundRobin():
        for number in range(9):
            assert abs(total[address(number)] - 1_000 * (1 + number % 3)) <= 1
