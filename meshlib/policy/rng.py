"""The one thing a policy needs of a random generator."""

from __future__ import annotations

from typing import Protocol


class Rng(Protocol):
    """A source of randomness; `random.Random` is one, a test gives a seeded or scripted one."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...


def happens(fraction: float, rng: Rng) -> bool:
    """Whether something that is to happen in `fraction` of the cases happens now. 0 and 1 draw nothing."""
    if fraction >= 1.0:
        return True
    return fraction > 0.0 and rng.random() < fraction
