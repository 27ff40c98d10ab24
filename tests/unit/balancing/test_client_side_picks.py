"""Client-side weighted round robin: gRFC A58's formula and periods, in its numbers."""

import pytest

from meshlib.balancing.client_side import take_in, utilization, weight_of
from meshlib.model.lb import ClientSideWeightedRoundRobin
from meshlib.model.orca import LoadReport
from parts.balancing import Bench, address, flat

POLICY = ClientSideWeightedRoundRobin()


@pytest.mark.parametrize(
    "report,weight",
    [
        (LoadReport(cpu_utilization=0.5, rps_fractional=100.0), 200.0),
        (LoadReport(application_utilization=0.8, cpu_utilization=0.1, rps_fractional=100.0), 125.0),
        (LoadReport(cpu_utilization=0.5, rps_fractional=100.0, eps=50.0), 100.0),  # 0.5 + 50 / 100 · 1.0
        (LoadReport(cpu_utilization=2.0, rps_fractional=100.0), 50.0),
        (LoadReport(rps_fractional=100.0, eps=100.0), 100.0),
        (LoadReport(cpu_utilization=0.5), None),
        (LoadReport(rps_fractional=100.0), None),
        (LoadReport(), None),
    ],
)
def test_the_weight_is_what_the_endpoint_would_serve_when_full(report: LoadReport, weight: float | None) -> None:
    assert weight_of(report, POLICY) == weight


def test_the_penalty_of_errors() -> None:
    report = LoadReport(cpu_utilization=0.5, rps_fractional=100.0, eps=50.0)
    assert weight_of(report, ClientSideWeightedRoundRobin(error_utilization_penalty=0.0)) == 200.0
    assert weight_of(report, ClientSideWeightedRoundRobin(error_utilization_penalty=3.0)) == 50.0


@pytest.mark.parametrize(
    "names,used",
    [
        ((), 0.3),
        (("named_metrics.queue",), 0.7),
        (("named_metrics.queue", "utilization.disk"), 0.9),
        (("named_metrics.*",), 0.8),
        (("mem_utilization",), 0.4),
        (("named_metrics.unknown", "nonsense"), 0.3),
    ],
)
def test_named_metrics_count_before_the_processor(names: tuple[str, ...], used: float) -> None:
    report = LoadReport(
        cpu_utilization=0.3,
        mem_utilization=0.4,
        named_metrics={"queue": 0.7, "other": 0.8},
        utilization={"disk": 0.9},
    )
    assert utilization(report, names) == used


def reported(bench: Bench, utilizations: tuple[float, ...], *times: float) -> None:
    for now in times:
        for host, used in zip(bench.balancer.hosts, utilizations, strict=False):
            take_in(POLICY, host, LoadReport(cpu_utilization=used, rps_fractional=100.0), now)


def shares(bench: Bench, now: float, picks: int = 7_000) -> list[float]:
    bench.balancer.tick(now)
    counted = bench.picks(picks)
    return [round(counted[address(number)] / picks, 3) for number in range(len(bench.balancer.hosts))]


def test_weights_count_after_the_blackout_and_until_they_expire() -> None:
    bench = Bench(flat(3), lb_policy=POLICY)
    reported(bench, (0.25, 0.5, 1.0), 100.0)
    assert shares(bench, 100.0) == pytest.approx([1 / 3] * 3, abs=0.002)
    assert shares(bench, 109.9) == pytest.approx([1 / 3] * 3, abs=0.002)
    by_load = pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.002)
    assert shares(bench, 110.0) == by_load
    assert shares(bench, 279.9) == by_load
    assert shares(bench, 280.0) == pytest.approx([1 / 3] * 3, abs=0.002)
    reported(bench, (0.25, 0.5, 1.0), 290.0)  # after the gap the blackout begins anew
    assert shares(bench, 299.9) == pytest.approx([1 / 3] * 3, abs=0.002)
    assert shares(bench, 300.0) == by_load


def test_reports_that_go_on_keep_the_weight() -> None:
    bench = Bench(flat(2), lb_policy=POLICY)
    reported(bench, (0.25, 0.5), 0.0, 100.0, 200.0, 300.0)
    assert shares(bench, 310.0) == pytest.approx([2 / 3, 1 / 3], abs=0.002)


def test_an_endpoint_that_reports_nothing_has_the_median_weight() -> None:
    bench = Bench(flat(4), lb_policy=POLICY)
    reported(bench, (0.25, 0.5, 1.0), 0.0)  # weights 400, 200, 100, so 200 for the fourth
    assert shares(bench, 20.0, 9_000) == pytest.approx([4 / 9, 2 / 9, 1 / 9, 2 / 9], abs=0.002)


def test_with_fewer_than_two_weights_all_are_equal() -> None:
    bench = Bench(flat(3), lb_policy=POLICY)
    reported(bench, (0.1,), 0.0)
    assert shares(bench, 20.0) == pytest.approx([1 / 3] * 3, abs=0.002)


def test_weights_are_taken_up_once_a_period() -> None:
    bench = Bench(flat(2), lb_policy=ClientSideWeightedRoundRobin(weight_update_period=5.0))
    assert bench.balancer.tick(7.0) == 12.0
    bench = Bench(flat(2), lb_policy=ClientSideWeightedRoundRobin(weight_update_period=0.001))
    assert bench.balancer.tick(7.0) == 7.1, "a tenth of a second at least (A58)"


def test_weights_survive_an_update_of_the_endpoints() -> None:
    bench = Bench(flat(2), lb_policy=POLICY)
    reported(bench, (0.25, 0.5), 0.0)
    bench.update(flat(3))
    assert shares(bench, 20.0, 9_000) == pytest.approx([4 / 9, 2 / 9, 3 / 9], abs=0.002)
