"""Subsets beyond the plain ones: fallbacks of selectors, lists, redundant keys, single hosts, localities, panic."""

from typing import Any

import pytest

from meshlib.model.lb import LbSubsetConfig, RingHash, SubsetSelector
from meshlib.model.metadata import Struct
from parts.balancing import Bench, address, assignment, endpoint, group

PICKS = 40


def chosen(
    config: LbSubsetConfig, labels: list[dict[str, Any]], wanted: dict[str, Any], **more: Any
) -> set[int | None]:
    """The numbers of the endpoints that requests with these criteria go to."""
    bench = Bench(assignment(group(endpoint(n, **label) for n, label in enumerate(labels))), subsets=config)
    numbers = {address(number): number for number in range(len(labels))}
    return {picked and numbers[picked] for picked in bench.picks(PICKS, Struct.of(wanted))}


STAGES = [{"version": "v1", "stage": "prod"}, {"version": "v2", "stage": "prod"}, {"version": "v2"}, {}]


@pytest.mark.parametrize(
    ("fallback", "keys", "found"),
    [
        ("NOT_DEFINED", (), {0, 1, 2, 3}),
        ("NO_FALLBACK", (), {None}),
        ("ANY_ENDPOINT", (), {0, 1, 2, 3}),
        ("DEFAULT_SUBSET", (), {2}),
        ("KEYS_SUBSET", ("version",), {1, 2}),
        ("KEYS_SUBSET", ("stage",), {0, 1, 2, 3}),  # no selector has that key alone
    ],
)
def test_a_selectors_own_fallback(fallback: Any, keys: tuple[str, ...], found: set[int | None]) -> None:
    selectors = (SubsetSelector(("stage", "version"), fallback, keys), SubsetSelector(("version",)))
    defaults = Struct.of({"version": "v2", "stage": "none"}) if fallback != "DEFAULT_SUBSET" else Struct.of({"x": 1})
    labels = [*STAGES[:2], {**STAGES[2], "x": 1}, *STAGES[3:]] if fallback == "DEFAULT_SUBSET" else STAGES
    config = LbSubsetConfig(selectors, "ANY_ENDPOINT", defaults)
    assert chosen(config, labels, {"version": "v2", "stage": "test"}) == found


def test_a_selector_after_a_longer_one_that_begins_alike_has_no_fallback_of_its_own() -> None:
    long, short = SubsetSelector(("a", "b")), SubsetSelector(("a",), "NO_FALLBACK")
    assert chosen(LbSubsetConfig((long, short), "ANY_ENDPOINT"), [{}, {}], {"a": 1}) == {0, 1}
    assert chosen(LbSubsetConfig((short, long), "ANY_ENDPOINT"), [{}, {}], {"a": 1}) == {None}


def test_the_first_of_a_list_of_criteria_that_has_an_endpoint_counts() -> None:
    config = LbSubsetConfig((SubsetSelector(("version",)),), metadata_fallback_list=True)
    wanted = {"version": "v0", "fallback_list": [{"version": "v3"}, {"version": "v2"}, {"version": "v1"}]}
    assert chosen(config, STAGES, wanted) == {1, 2}
    assert chosen(config, STAGES, {"version": "v1", "fallback_list": []}) == {0}
    assert chosen(config, STAGES, {"version": "v1", "fallback_list": [{"version": "v9"}]}) == {None}
    unread = LbSubsetConfig((SubsetSelector(("version",)),))
    assert chosen(unread, STAGES, {"version": "v1", "fallback_list": []}) == {None}  # a key like any other


def test_a_list_of_an_endpoint_stands_for_each_of_its_values() -> None:
    labels: list[dict[str, Any]] = [{"v": ["1", "2"]}, {"v": "2"}, {"v": ["1", "2"], "s": ["a", "b"]}]
    selectors = (SubsetSelector(("v",)), SubsetSelector(("s", "v")))
    config = LbSubsetConfig(selectors, list_as_any=True)
    assert chosen(config, labels, {"v": "2"}) == {0, 1, 2}
    assert chosen(config, labels, {"v": "1", "s": "b"}) == {2}
    assert chosen(LbSubsetConfig(selectors), labels, {"v": "2"}) == {1}
    assert chosen(LbSubsetConfig(selectors), labels, {"v": ["1", "2"]}) == {0, 2}
    default = LbSubsetConfig(selectors, "DEFAULT_SUBSET", Struct.of({"v": "1"}), list_as_any=True)
    assert chosen(default, labels, {}) == {0, 2}


def test_redundant_keys_are_left_out_for_the_longest_selector_that_fits() -> None:
    selectors = (SubsetSelector(("stage",)), SubsetSelector(("stage", "version")))
    wanted = {"version": "v2", "stage": "prod", "other": 1}
    assert chosen(LbSubsetConfig(selectors, allow_redundant_keys=True), STAGES, wanted) == {1}
    assert chosen(LbSubsetConfig(selectors), STAGES, wanted) == {None}


def test_a_subset_of_a_single_host_is_its_first_host_in_any_health() -> None:
    config = LbSubsetConfig((SubsetSelector(("version",), single_host_per_subset=True),))
    assert chosen(config, STAGES, {"version": "v2"}) == {1}
    bench = Bench(assignment(group(endpoint(n, **label) for n, label in enumerate(STAGES))), subsets=config)
    bench.eject(address(1))
    assert set(bench.picks(5, Struct.of({"version": "v2"}))) == {address(1)}


def test_any_endpoint_serves_in_panic_where_the_default_has_none() -> None:
    default = Struct.of({"stage": "none"})
    config = LbSubsetConfig((SubsetSelector(("version",)),), "DEFAULT_SUBSET", default, panic_mode_any=True)
    assert chosen(config, STAGES, {"version": "v9"}) == {0, 1, 2, 3}
    without = LbSubsetConfig((SubsetSelector(("version",)),), "DEFAULT_SUBSET", default)
    assert chosen(without, STAGES, {"version": "v9"}) == {None}


@pytest.mark.parametrize(("scale", "expected"), [(False, 3 / 4), (True, 1.5 / 2.5)])
def test_locality_weights_count_in_a_subset_only_if_it_is_aware_of_them(scale: bool, expected: float) -> None:
    """Locality x of weight 3 has half of its endpoints in the subset, y of weight 1 all."""
    groups = (
        group([endpoint(0, v="1"), endpoint(1, v="2")], "x", weight=300),
        group([endpoint(2, v="1")], "y", weight=100),
    )
    selectors = (SubsetSelector(("v",)),)

    def share(**flags: bool) -> float:
        config = LbSubsetConfig(selectors, **flags)
        bench = Bench(assignment(*groups), subsets=config, locality_weighted=True)
        return bench.picks(1000, Struct.of({"v": "1"}))[address(0)] / 1000

    assert share(locality_weight_aware=True, scale_locality_weight=scale) == pytest.approx(expected, abs=0.02)
    assert share() == pytest.approx(0.5, abs=0.01)


def test_the_table_of_a_subset_in_use_is_made_by_refresh_and_not_by_the_next_request() -> None:
    config = LbSubsetConfig((SubsetSelector(("version",)),))
    labelled = assignment(group(endpoint(n, version="v1") for n in range(4)))
    bench = Bench(labelled, subsets=config, lb_policy=RingHash(4096))
    criteria = Struct.of({"version": "v1"})
    bench.pick(1, criteria)
    bench.eject(address(2))
    bench.balancer.refresh()
    (view,) = bench.balancer._compiled._views.values()
    assert address(2) not in {host.address for hosts, _, _ in view.built.values() for host in hosts}
