"""Weighted clusters."""

import random

import pytest

from meshlib.model.report import ResourceError
from meshlib.model.route import WeightedCluster, WeightedClusters
from meshlib.routing.weighted import WeightedChoice, compile_weighted

CHI_SQUARED_99_9 = {2: 13.816, 3: 16.266}  # critical values by degrees of freedom


def test_values_fall_on_running_sums() -> None:
    choice = WeightedChoice((2, 0, 3))
    assert [choice.at(value) for value in range(5)] == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("weights", [(1, 1, 1), (90, 9, 1), (1, 0, 5, 4)])
def test_shares_follow_the_weights(weights: tuple[int, ...]) -> None:
    choice = compile_weighted(WeightedClusters(tuple(WeightedCluster(f"c{w}", w) for w in weights)))
    rng, draws = random.Random(11), 20_000
    counts = [0] * len(weights)
    for _ in range(draws):
        counts[choice.pick(rng)] += 1
    expected = [draws * weight / sum(weights) for weight in weights]
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if weight == 0)
    chi = sum((count - want) ** 2 / want for count, want in zip(counts, expected, strict=True) if want)
    assert chi < CHI_SQUARED_99_9[sum(weight > 0 for weight in weights) - 1]


def test_the_largest_sample_stays_inside() -> None:
    class Most:
        def random(self) -> float:
            return 1 - 2**-53

    assert WeightedChoice((2**32 - 2, 1)).pick(Most()) == 1


@pytest.mark.parametrize("weights", [(), (0, 0), (2**32 - 1, 1)])
def test_sums_outside_envoys_bounds_are_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ResourceError, match="weights sum to"):
        WeightedChoice(weights)
