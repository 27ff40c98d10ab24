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

    def read(self) -> dict[EndpointState, Tally]:
        """The endpoints with attempts. To be called once."""
        cells = dict.fromkeys((*self.successes, *self.failures, *self.local_failures))
        kinds = (self.successes, self.failures, self.local_failures, self.connected)
        return {cell: Tally(*(_total(steps, cell) for steps in kinds)) for cell in cells}


def step(steps: Steps, cell: EndpointState) -> None:
    """Count one more."""
    counter = steps.get(cell)
    next(counter if counter is not None else steps.setdefault(cell, count()))


def _total(steps: Steps, cell: EndpointState) -> int:
    counter = steps.get(cell)
    return 0 if counter is None else next(counter)  # a step too, which is why a window is read once
