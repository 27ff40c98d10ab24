"""Peak EWMA: what an endpoint costs, and what makes it cheaper again."""

import math
import threading

import pytest

from meshlib.balancing.peak_ewma import PeakEwmaBalancer, observe
from meshlib.model.lb import PeakEwma
from meshlib.state.latency import Estimate, Latency
from parts.balancing import Bench, address, flat

POLICY = PeakEwma()


def costs(bench: Bench) -> list[float]:
    balancer = PeakEwmaBalancer(bench.balancer.hosts, POLICY)
    balancer.tick(bench.now)  # type: ignore[attr-defined]
    return [balancer.cost(host) for host in bench.balancer.hosts]


def bench_of(count: int, *latencies: float) -> Bench:
    bench = Bench(flat(count), lb_policy=POLICY)
    for host, seconds in zip(bench.balancer.hosts, latencies, strict=False):
        observe(POLICY, host, seconds, 0.0, failed=False)
    bench.now = 0.0  # type: ignore[attr-defined]
    return bench


def test_latency_times_requests_in_flight() -> None:
    bench = bench_of(2, 0.1, 0.02)
    bench.balancer.hosts[1].cell.live.update(dict.fromkeys(range(3)))
    assert costs(bench) == pytest.approx([0.1, 0.08])
    assert bench.picks(200) == {address(1): 200}


def test_an_endpoint_never_heard_of_is_tried_once_and_no_more_before_it_answers() -> None:
    bench = bench_of(3, 0.05, 0.05)
    assert costs(bench)[2] == POLICY.default_rtt
    bench.balancer.hosts[2].cell.live["first"] = 0.0
    assert costs(bench)[2] == POLICY.penalty + 1
    assert bench.picks(100)[address(2)] == 0


def test_a_peak_counts_at_once_and_falls_over_the_decay_time() -> None:
    latency = Latency()
    for seconds in (0.01, 0.01, 0.5):
        latency.observe(seconds, 0.0, 10.0)
    assert latency.estimate == Estimate(0.5, 0.0)
    latency.observe(0.01, 10.0, 10.0)
    assert latency.estimate is not None
    assert latency.estimate.seconds == pytest.approx(0.5 / math.e + 0.01 * (1 - 1 / math.e))


def test_an_endpoint_that_is_not_asked_gets_cheaper_and_is_tried_again() -> None:
    bench = bench_of(2, 0.5, 0.02)
    bench.balancer.tick(1.0)
    assert bench.picks(100)[address(0)] == 0
    bench.balancer.tick(60.0)
    observe(POLICY, bench.balancer.hosts[1], 0.02, 60.0, failed=False)
    assert bench.picks(100)[address(0)] == 100


def test_a_failure_is_never_fast() -> None:
    bench = bench_of(2, 0.05, 0.06)
    for _ in range(3):
        observe(POLICY, bench.balancer.hosts[0], 0.0001, 0.0, failed=True)
    assert costs(bench)[0] == pytest.approx(0.4)
    for _ in range(30):
        observe(POLICY, bench.balancer.hosts[0], 0.0001, 0.0, failed=True)
    assert costs(bench)[0] == POLICY.decay_time


def test_the_two_drawn_are_different() -> None:
    assert bench_of(2, 0.5, 0.02).picks(100) == {address(1): 100}


def test_no_sample_is_lost_under_threads() -> None:
    latency = Latency()
    worked_off: list[float] = []

    class Counting(Latency):
        __slots__ = ()

        def _work_off(self, decay_time: float) -> None:
            queue = self._queue
            while queue:
                worked_off.append(queue.popleft()[0])

    latency = Counting()
    threads = [
        threading.Thread(target=lambda: [latency.observe(1.0, 0.0, 10.0) for _ in range(2_000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latency.observe(1.0, 0.0, 10.0)
    assert len(worked_off) == 16_001
