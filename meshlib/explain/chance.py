"""Chance replaced by a number, as in Envoy's router check tool."""

from __future__ import annotations

from meshlib.engine.table import VirtualHostPlan
from meshlib.model.request import RequestHead


class FixedChance:
    """Stands for the random numbers of one request: the remainder of `random_value` by the denominator of a runtime
    fraction, then by the total weight of the route's clusters.

    A request is compared with all fractions of its virtual host by one number, so where they have different
    denominators the largest counts.
    """

    def __init__(self, host: VirtualHostPlan, head: RequestHead, random_value: int) -> None:
        fractions = [route.match.runtime_fraction for route in host.table.config.routes]
        denominator = max((fraction.denominator for fraction in fractions if fraction is not None), default=100)
        self._values = [_middle(random_value, denominator)]
        index = host.table.match(head, self)
        drawn = not self._values
        choose = host.routes[index].choose if index >= 0 else None
        self._values = [_middle(random_value, choose.total)] if choose is not None else []
        if drawn:
            self._values.append(_middle(random_value, denominator))

    def again(self) -> FixedChance:
        """The same numbers from the first on."""
        copy = FixedChance.__new__(FixedChance)
        copy._values = list(self._values)
        return copy

    def random(self) -> float:
        """The next of the numbers, in [0, 1)."""
        return self._values.pop() if self._values else 0.0


def _middle(value: int, total: int) -> float:
    """The middle of the part of [0, 1) that belongs to the remainder, so that rounding cannot lead to another."""
    return (value % total + 0.5) / total
