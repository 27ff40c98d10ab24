import pytest

from meshlib.model.lb import LeastRequest
from parts.balancing import Bench, address, assignment, endpoint, flat, group


def busy(bench: Bench, number: int, requests: int) -> None:
    live = bench.state.endpoint(address(number)).live
    live.update(dict.fromkeys(range(requests)))


def test_the_idler_of_two_choices_wins() -> None:
    bench = Bench(flat(2), lb_policy=LeastRequest())
    busy(bench, 0, 3)
    assert bench.picks(400) == {address(1): 400}, "the two are never the same"


def test_more_choices_find_the_idle_host_more_often() -> None:
    bench = Bench(flat(4), lb_policy=LeastRequest(choice_count=8))
    for number in (0, 1, 2):
        busy(bench, number, 1)
    share = bench.picks(4_000)[address(3)] / 4_000
    assert abs(share - (1 - 3 / 4 * 2 / 3 * 0.75**6)) < 0.02


@pytest.mark.parametrize("choice_count", [2, 3])
def test_equal_load_is_uniform(choice_count: int) -> None:
    picks = Bench(flat(5), lb_policy=LeastRequest(choice_count)).picks(10_000)
    assert all(abs(count - 2_000) < 200 for count in picks.values())


def test_idle_hosts_of_unequal_weights_are_picked_by_weight() -> None:
    bench = Bench(assignment(group([endpoint(0, 3), endpoint(1, 1)])), lb_policy=LeastRequest())
    picks = bench.picks(4_000)
    assert abs(picks[address(0)] - 3_000) <= 1


@pytest.mark.parametrize("bias,share", [(1.0, 1 / 3), (0.0, 2 / 3), (2.0, 2 / 18)])
def test_the_weight_sinks_with_active_requests_by_the_bias(bias: float, share: float) -> None:
    # Host 0: weight 2, three active, so 2 / 4 ** bias; host 1: weight 1, none active.
    policy = LeastRequest(active_request_bias=bias)
    bench = Bench(assignment(group([endpoint(0, 2), endpoint(1, 1)])), lb_policy=policy)
    busy(bench, 0, 3)
    picks = bench.picks(9_000)
    assert abs(picks[address(0)] / 9_000 - share) < 0.002


def test_a_full_scan_finds_the_least_loaded() -> None:
    bench = Bench(flat(40), lb_policy=LeastRequest(full_scan=True))
    for number in range(40):
        busy(bench, number, 1 if number == 7 else 2 + number % 3)
    assert bench.picks(50) == {address(7): 50}


@pytest.mark.parametrize("tied", [(3, 4), (0, 1, 2, 3, 4, 5, 39), tuple(range(40))])
@pytest.mark.parametrize("requests", [0, 2])
def test_ties_of_a_full_scan_are_random(tied: tuple[int, ...], requests: int) -> None:
    bench = Bench(flat(40), lb_policy=LeastRequest(full_scan=True))
    for number in range(40):
        busy(bench, number, requests if number in tied else 5)
    picks = bench.picks(8_000)
    assert set(picks) == {address(number) for number in tied}
    expected = 8_000 / len(tied)
    assert all(abs(count - expected) < 5 * expected**0.5 + 1 for count in picks.values())


@pytest.mark.parametrize("bias", [50.0, 400.0, 1e6])
def test_a_large_bias_shuts_a_busy_host_out_and_breaks_nothing(bias: float) -> None:
    policy = LeastRequest(active_request_bias=bias)
    bench = Bench(assignment(group([endpoint(0, 9), endpoint(1, 1), endpoint(2, 2)])), lb_policy=policy)
    busy(bench, 0, 9)
    picks = bench.picks(3_000)
    assert picks[address(0)] <= 1
    assert abs(picks[address(1)] - 1_000) <= 2


def test_every_host_busy_under_a_large_bias_is_still_picked_from() -> None:
    bench = Bench(
        assignment(group([endpoint(0, 9), endpoint(1, 1)])), lb_policy=LeastRequest(active_request_bias=900.0)
    )
    for number in (0, 1):
        busy(bench, number, 5)
    assert bench.picks(1_000)[address(0)] == pytest.approx(900, abs=2)
