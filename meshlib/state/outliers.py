"""Window: what the attempts of one interval came to, endpoint by endpoint, for the detectors that go by shares."""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from meshlib.state.cells import EndpointState

Steps = dict["EndpointState", "count[int]"]


class Tally(NamedTuple):
    """An endpoint's attempts in a window: answers below 500 and others; failures on this side of the wire, counted only
    where those are kept apart, and how many of these had a connection.
    """

    successes: int
    failures: int
    local_failures: int
    connected: int


class Window:
    """Counted in until `ends` (monotonic seconds; infinite until the first sweep says when) and read once, by the
    thread that closes it. An attempt is one step of an `itertools.count`, which is atomic; a step that comes while the
    window is being read may be lost, as in Envoy.
    """

    __slots__ = ("_closed", "connected", "ends", "failures", "local_failures", "successes")

    def __init__(self, ends: float = math.inf) -> None:
        self.ends = ends
        self.successes: Steps = {}
        self.failures: Steps = {}
        self.local_failures: Steps = {}
        self.connected: Steps = {}
        self._closed: dict[str, object] = {}

    def close(self) -> bool:
        """Whether it is the caller who closes it, and so has to read it; one caller is."""
        token = object()
        return self._closed.setdefault("", token) is token

    def read(self, least: int = 1) -> dict[EndpointState, Tally]:
        """The endpoints with at least so many attempts: of ten thousand few have. To be called once."""
        blamed = dict.fromkeys((*self.failures, *self.local_failures))
        failed = {cell: self._tally(cell) for cell in blamed}
        found = {cell: tally for cell, tally in failed.items() if sum(tally) >= least}
        for cell, counter in list(self.successes.items()):
            if cell not in failed and (good := next(counter)) >= least:
                found[cell] = Tally(good, 0, 0, 0)
        return found

    def _tally(self, cell: EndpointState) -> Tally:
        kinds = (self.successes, self.failures, self.local_failures, self.connected)
        return Tally(*(_total(steps, cell) for steps in kinds))


def step(steps: Steps, cell: EndpointState) -> None:
    """Count one more."""
    counter = steps.get(cell)
    next(counter if counter is not None else steps.setdefault(cell, count()))


def _total(steps: Steps, cell: EndpointState) -> int:
    counter = steps.get(cell)
    return 0 if counter is None else next(counter)  # a step too, which is why a window is read once
