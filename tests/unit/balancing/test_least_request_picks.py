import pytest

from meshlib.model.lb import LeastRequest
from parts.balancing import Bench, address, assignment, endpoint, flat, group


def busy(bench: Bench, number: int, requests: int) -> None:
    live = bench.state.endpoint(address(number)).live
    live.update(dict.fromkeys(range(requests)))


def test_the_idler_of_two_choices_wins() -> None:
    bench = Bench(flat(2), lb_policy=LeastRequest())
    busy(bench, 0, 3)
    picks = bench.picks(4_000)
    # The busy host is picked only when it is drawn twice: a quarter.
    assert 0.22 < picks[address(0)] / 4_000 < 0.28


def test_more_choices_find_the_idle_host_more_often() -> None:
    bench = Bench(flat(4), lb_policy=LeastRequest(choice_count=8))
    for number in (0, 1, 2):
        busy(bench, number, 1)
    share = bench.picks(4_000)[address(3)] / 4_000
    assert abs(share - (1 - 0.75**8)) < 0.02


def test_equal_load_is_uniform() -> None:
    picks = Bench(flat(5), lb_policy=LeastRequest()).picks(10_000)
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
