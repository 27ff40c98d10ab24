"""Pick first: the order that is shuffled once, whatever comes and goes beside the endpoint in use."""

from __future__ import annotations

from collections import Counter

from meshlib.model.lb import PickFirst
from parts.balancing import Bench, address, endpoint, flat, group
from parts.balancing import assignment as assigned

SHUFFLED = PickFirst(shuffle_address_list=True)


def test_what_happens_to_other_endpoints_moves_no_request() -> None:
    for seed in range(30):
        bench = Bench(flat(5), seed=seed, lb_policy=SHUFFLED)
        first = bench.pick()
        bench.update(flat(9))
        assert bench.pick() == first
        others = [address(number) for number in range(9) if address(number) != first]
        bench.eject(*others[:3])
        assert bench.pick() == first
        bench.restore(*others[:3])
        bench.update(assigned(group([endpoint(n) for n in range(9) if address(n) not in others[:2]])))
        assert bench.pick() == first


def test_requests_come_back_to_the_first_that_was_away() -> None:
    bench = Bench(flat(4), lb_policy=SHUFFLED)
    first = bench.pick()
    assert first is not None
    bench.eject(first)
    assert bench.pick() != first
    bench.restore(first)
    assert bench.pick() == first


def test_clients_choose_differently() -> None:
    first = Counter(Bench(flat(4), seed=seed, lb_policy=SHUFFLED).pick() for seed in range(400))
    assert set(first) == {address(number) for number in range(4)}
    assert min(first.values()) > 60  # of 100 expected, with seeds that do not change
