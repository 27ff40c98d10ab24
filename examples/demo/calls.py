"""What is kept of each call, and the sums over them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its caller saw it. `began` is monotonic seconds, `took` seconds.

    `revision` is the edit that routed it (None: the mesh answered itself), `answer` the status or the error's name;
    `failed` when it was neither what the caller wanted nor an answer it has a use for. `continued`: how often an
    answer broke in the middle and its caller asked again, or for the rest.
    """

    kind: str
    began: float
    took: float
    cluster: str
    endpoint: str
    revision: int | None
    attempts: int
    answer: int | str
    failed: bool = False
    continued: int = 0


_OUT_OF_ORDER = 50  # calls; two threads may add theirs in the other order than they ended, by a hair


def _ended(call: Call) -> float:
    return call.began + call.took


class Ledger:
    """Every call of the demo, from any thread, in the order they ended."""

    def __init__(self) -> None:
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        """Keep a call; list.append is atomic, so callers never wait for one another."""
        self._calls.append(call)

    def all(self) -> Sequence[Call]:
        """Every call so far."""
        return self._calls[:]

    def since(self, moment: float) -> list[Call]:
        """The calls that ended at or after a moment (monotonic seconds)."""
        calls = self._calls
        first = bisect_left(calls, moment, key=_ended) - _OUT_OF_ORDER
        return [call for call in calls[max(0, first) :] if _ended(call) >= moment]

    def between(self, first: float, last: float) -> list[Call]:
        """The calls that began in a span of time."""
        return [call for call in self._calls if first <= call.began < last]

    def routed_by(self, revision: int, kind: str = "charge") -> list[Call]:
        """The calls of a kind that an edit routed."""
        return [call for call in self._calls if call.revision == revision and call.kind == kind]


def percentile(seconds: Iterable[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank); 0 of nothing."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def within_chance(hits: int, total: int, share: float, sigmas: float = 4.5) -> bool:
    """Whether `hits` of `total` is what chance makes of `share`: 4.5 standard deviations miss once in 150 000."""
    spread = sigmas * (total * share * (1 - share)) ** 0.5
    return total > 0 and abs(hits - total * share) <= spread
