"""What generators draw with: by a seed, thousands of cases a second, or by hypothesis, which shrinks what fails.

The names are hypothesis's. A strategy asks for numbers below a limit and for nothing else, so that any source of such
numbers can drive it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from hypothesis import strategies

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")
Chooser = Callable[[int], int]
"""Tells a number from 0 to one less than the limit it is given."""
LONGEST = 8
"""Items of a list of which no maximum is known, at most."""


class Strategy(Generic[T]):
    """A way to make values from a chooser's numbers."""

    def __init__(self, draw: Callable[[Chooser], T]) -> None:
        self.draw = draw

    def map(self, change: Callable[[T], S]) -> Strategy[S]:
        return Strategy(lambda choose: change(self.draw(choose)))

    def flatmap(self, change: Callable[[T], Strategy[S]]) -> Strategy[S]:
        return Strategy(lambda choose: change(self.draw(choose)).draw(choose))

    def by(self, rng: random.Random) -> T:
        """A value by a seed."""
        return self.draw(rng.randrange)

    def shrinking(self) -> strategies.SearchStrategy[T]:
        """The same for hypothesis. The first of several choices is the simplest to it."""

        @strategies.composite
        def drawn(draw: strategies.DrawFn) -> T:
            return self.draw(lambda limit: draw(strategies.integers(0, limit - 1)))

        return drawn()


class DrawFn:
    """What a function under `composite` draws with."""

    def __init__(self, choose: Chooser) -> None:
        self._choose = choose

    def __call__(self, strategy: Strategy[T]) -> T:
        return strategy.draw(self._choose)


def composite(function: Callable[Concatenate[DrawFn, P], T]) -> Callable[P, Strategy[T]]:
    def make(*args: P.args, **kwargs: P.kwargs) -> Strategy[T]:
        return Strategy(lambda choose: function(DrawFn(choose), *args, **kwargs))

    return make


def just(value: T) -> Strategy[T]:
    return Strategy(lambda choose: value)


def none() -> Strategy[None]:
    return just(None)


def integers(low: int, high: int) -> Strategy[int]:
    return Strategy(lambda choose: low + choose(high - low + 1))


def booleans() -> Strategy[bool]:
    return Strategy(lambda choose: choose(2) == 1)


def sampled_from(values: Sequence[T]) -> Strategy[T]:
    return Strategy(lambda choose: values[choose(len(values))])


def one_of(*some: Strategy[Any]) -> Strategy[Any]:
    return Strategy(lambda choose: some[choose(len(some))].draw(choose))


def tuples(*parts: Strategy[Any]) -> Strategy[tuple[Any, ...]]:
    return Strategy(lambda choose: tuple([part.draw(choose) for part in parts]))


def builds(make: Callable[..., T], *parts: Strategy[Any]) -> Strategy[T]:
    return Strategy(lambda choose: make(*[part.draw(choose) for part in parts]))


def lists(
    item: Strategy[T], min_size: int = 0, max_size: int = LONGEST, unique_by: Callable[[T], Hashable] | None = None
) -> Strategy[list[T]]:
    """Lists of any length in between; with `unique_by` shorter than the length drawn, where items repeat."""

    def drawn(choose: Chooser) -> list[T]:
        length = min_size + choose(max_size - min_size + 1)
        if unique_by is None:
            return [item.draw(choose) for _ in range(length)]
        found: dict[Hashable, T] = {}
        tries = 0
        while len(found) < length and (tries < length or len(found) < min_size):
            value = item.draw(choose)
            found.setdefault(unique_by(value), value)
            tries += 1
        return list(found.values())

    return Strategy(drawn)


def dictionaries(
    keys: Strategy[S], values: Strategy[T], min_size: int = 0, max_size: int = LONGEST
) -> Strategy[dict[S, T]]:
    names: Strategy[list[Any]] = lists(keys, min_size, max_size, unique_by=lambda key: key)
    return Strategy(lambda choose: {name: values.draw(choose) for name in names.draw(choose)})


def recursive(base: Strategy[Any], extend: Callable[[Strategy[Any]], Strategy[Any]], depth: int) -> Strategy[Any]:
    """`base`, or what `extend` makes of strategies that go less deep."""
    found = base
    for _ in range(depth):
        found = one_of(base, extend(found))
    return found
