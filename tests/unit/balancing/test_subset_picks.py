import pytest

from meshlib.balancing.compiled import MEMO_LIMIT
from meshlib.model.lb import LbSubsetConfig, SubsetSelector
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from parts.balancing import Bench, address, assignment, endpoint, group

ENDPOINTS = assignment(
    group(
        [
            endpoint(0, version="v1", stage="prod"),
            endpoint(1, version="v2", stage="prod"),
            endpoint(2, version="v2", stage="test"),
            endpoint(3),
        ]
    )
)
SELECTORS = (SubsetSelector(("version",)), SubsetSelector(("version", "stage")))


def bench(fallback: str = "NO_FALLBACK", default: Struct = EMPTY_STRUCT) -> Bench:
    return Bench(ENDPOINTS, subsets=LbSubsetConfig(SELECTORS, fallback, default))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "criteria,hosts",
    [
        ({"version": "v1"}, {0}),
        ({"version": "v2"}, {1, 2}),
        ({"version": "v2", "stage": "test"}, {2}),
        ({"stage": "test", "version": "v2"}, {2}),
    ],
)
def test_criteria_choose_the_subset(criteria: dict[str, str], hosts: set[int]) -> None:
    assert set(bench().picks(20, Struct.of(criteria))) == set(map(address, hosts))


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"stage": "prod"},  # no selector has just this key
        {"version": "v3"},
        {"version": "v1", "stage": "test"},
        {"version": "v1", "other": "x"},
    ],
)
@pytest.mark.parametrize(
    "fallback,default,hosts",
    [
        ("NO_FALLBACK", {}, {None}),
        ("ANY_ENDPOINT", {}, set(map(address, range(4)))),
        ("DEFAULT_SUBSET", {"stage": "prod"}, {address(0), address(1)}),
        ("DEFAULT_SUBSET", {"stage": "nowhere"}, {None}),
        ("DEFAULT_SUBSET", {}, set(map(address, range(4)))),
    ],
)
def test_the_fallback_takes_the_rest(
    criteria: dict[str, str], fallback: str, default: dict[str, str], hosts: set[str | None]
) -> None:
    picked = bench(fallback, Struct.of(default)).picks(40, Struct.of(criteria))
    assert set(picked) == hosts


def test_true_and_one_are_different_values() -> None:
    endpoints = assignment(group([endpoint(0, canary=True), endpoint(1, canary=1)]))
    made = Bench(endpoints, subsets=LbSubsetConfig((SubsetSelector(("canary",)),)))
    assert set(made.picks(4, Struct.of({"canary": True}))) == {address(0)}
    assert set(made.picks(4, Struct.of({"canary": 1}))) == {address(1)}


def test_a_subset_without_healthy_hosts_panics_by_itself_and_does_not_fall_back() -> None:
    made = bench("ANY_ENDPOINT")
    made.eject(address(0))
    assert set(made.picks(10, Struct.of({"version": "v1"}))) == {address(0)}
    assert made.balancer.in_panic
    assert set(made.picks(10, Struct.of({"version": "v2"}))) == {address(1), address(2)}


def test_each_subset_follows_ejections() -> None:
    made = bench()
    v2 = Struct.of({"version": "v2"})
    assert set(made.picks(10, v2)) == {address(1), address(2)}
    made.eject(address(2))
    assert set(made.picks(10, v2)) == {address(1)}


def test_locality_weights_do_not_count_within_subsets() -> None:
    endpoints = assignment(
        group([endpoint(0, version="v1")], "a", weight=1), group([endpoint(1, version="v1")], "b", weight=9)
    )
    made = Bench(endpoints, locality_weighted=True, subsets=LbSubsetConfig((SubsetSelector(("version",)),)))
    assert made.picks(10, Struct.of({"version": "v1"})) == {address(0): 5, address(1): 5}


def test_subsets_keep_the_priorities_of_their_hosts() -> None:
    endpoints = assignment(
        group([endpoint(0, version="v1", health="UNHEALTHY")]), group([endpoint(1, version="v1")], priority=1)
    )
    made = Bench(endpoints, subsets=LbSubsetConfig((SubsetSelector(("version",)),)))
    assert set(made.picks(10, Struct.of({"version": "v1"}))) == {address(1)}


def test_without_selectors_there_are_no_subsets() -> None:
    made = Bench(ENDPOINTS, subsets=LbSubsetConfig(()))
    assert set(made.picks(8, Struct.of({"version": "v1"}))) == set(map(address, range(4)))


def test_more_criteria_than_are_remembered_still_work() -> None:
    made = bench("ANY_ENDPOINT")
    assert all(made.pick(None, Struct.of({"n": str(number)})) for number in range(1_100))
    assert set(made.picks(4, Struct.of({"version": "v1"}))) == {address(0)}


def test_criteria_that_never_come_again_do_not_crowd_out_those_that_do() -> None:
    """Strict lanes make criteria of what callers say; a route's own are looked up by identity all the same."""
    made = bench()
    for number in range(2 * MEMO_LIMIT):
        assert made.pick(None, Struct.of({"version": f"unknown-{number}"})) is None
    own = Struct.of({"version": "v1"})
    assert made.pick(None, own) == address(0)
    memo = made.balancer._compiled._memo
    assert id(own) in memo
    assert len(memo) <= MEMO_LIMIT
