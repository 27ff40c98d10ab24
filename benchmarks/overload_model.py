"""A server of fixed capacity under more than it can do, in model time: the mesh's own filters, all times given.

Arrivals are random and do not wait for answers (an open loop). A request needs a worker for its service time, and waits
in a queue without bound until one is free; whoever called gives up after `PATIENCE`, which the server does not notice:
what it works on then is in vain. Nothing here depends on the machine or its load, so the figures are exact.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from meshlib.drivers.turns import Turn
from meshlib.engine.ends import Admit, End
from meshlib.engine.pauses import Consult
from meshlib.engine.shedding import Shedder, server_shedder
from meshlib.model.request import RequestHead
from meshlib.model.shedding import AdaptiveConcurrency, AdmissionControl, Bulkhead, QueueDeadline, Shedding
from meshlib.policy.bulkhead import Place

WORKERS = 10
SERVICE = 0.02  # seconds, and an exponentially distributed time of the same mean more
CAPACITY = WORKERS / (2 * SERVICE)  # requests a second
PATIENCE = 0.5
WALL = 1_700_000_000.0

SHEDDING: dict[str, Shedding | None] = {
    "nothing": None,
    "adaptive concurrency": AdaptiveConcurrency(),
    "bulkhead": Bulkhead(2 * WORKERS),
    "bulkhead with a queue": Bulkhead(WORKERS, max_waiting=10 * WORKERS),
    "admission control": AdmissionControl(sampling_window=10.0),
    "queue deadline": QueueDeadline(),
}


@dataclass(slots=True)
class Request:
    """One request: when it came, what it needs, how it ended."""

    at: float
    needs: float
    urgent: bool = False
    admit: Admit | None = None
    ended: float | None = None
    refused: bool = False

    @property
    def good(self) -> bool:
        """Whether it was answered while somebody waited for it."""
        return self.ended is not None and not self.refused and self.ended - self.at <= PATIENCE


@dataclass(slots=True)
class Figures:
    """What came of the requests that arrived after the warm-up."""

    requests: Sequence[Request]
    seconds: float
    stats: dict[str, float] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        """Answers in time, as a part of the capacity."""
        return sum(request.good for request in self.requests) / self.seconds / CAPACITY

    def quantile(self, part: float) -> float:
        """Of the seconds that admitted requests took. One that has not ended took longer than any other."""
        times = sorted(
            (request.ended - request.at if request.ended is not None else float("inf"))
            for request in self.requests
            if not request.refused
        )
        return times[min(len(times) - 1, int(part * len(times)))]

    def by_second(self, seconds: int) -> list[float]:
        """The goodput of those that arrived in each second."""
        found = [0] * seconds
        for request in self.requests:
            if request.good and int(request.at) < seconds:
                found[int(request.at)] += 1
        return [count / CAPACITY for count in found]


class Model:
    """One server and its callers."""

    def __init__(self, shedding: Shedding | None, seed: int) -> None:
        self._rng = random.Random(seed)
        self.shedder: Shedder | None = None
        if shedding is not None:
            self.shedder = server_shedder(shedding, wait=Turn, wall=lambda: WALL + self._now)
        self._at_worker = isinstance(shedding, QueueDeadline)  # it is asked when a worker takes a request up
        self._now = 0.0
        self._order = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._queue: deque[Request] = deque()
        self._busy = 0
        self.requests: list[Request] = []

    def run(self, seconds: float, load: Callable[[float], float], urgent: float = 0.0) -> list[Request]:
        """`load` is what is offered at a time, as a multiple of the capacity; `urgent` the part that is critical."""
        rng, at = self._rng, 0.0
        while (at := at + rng.expovariate(CAPACITY * max(load(at), 1e-9))) < seconds:
            request = Request(at, SERVICE + rng.expovariate(1 / SERVICE), rng.random() < urgent)
            self.requests.append(request)
            self._at(at, self._arrives, request)
        while self._events:
            self._now, _, act = heappop(self._events)
            if self._now > seconds + PATIENCE:
                break
            act()
        return self.requests

    def _at(self, at: float, act: Callable[[Any], None], subject: Any) -> None:
        self._order += 1
        heappush(self._events, (at, self._order, lambda: act(subject)))

    def _arrives(self, request: Request) -> None:
        if self.shedder is None or self._at_worker:
            self._enters(request, None)
        else:
            self._decided(request, self.shedder.on_request(_head(request), self._now, self._rng))

    def _decided(self, request: Request, verdict: Any) -> None:
        if isinstance(verdict, Consult):
            self._waits(request, verdict)
        elif verdict is None or isinstance(verdict, Admit):
            self._enters(request, verdict)
        else:
            self._refused(request)

    def _waits(self, request: Request, pause: Consult) -> None:
        """In the shedder's own queue, until it is woken or has waited for too long."""
        turn: Any = pause.question
        place: Place = turn.place
        done = False

        def settled(_: object = None) -> None:
            nonlocal done
            if not done:
                done = True
                self._decided(request, pause.then(None, self._now))

        place.wake = settled
        self._at(self._now + turn.seconds, settled, None)

    def _refused(self, request: Request) -> None:
        request.refused, request.ended = True, self._now

    def _enters(self, request: Request, admit: Admit | None) -> None:
        request.admit = admit
        self._queue.append(request)
        self._work()

    def _work(self) -> None:
        while self._queue and self._busy < WORKERS:
            request = self._queue.popleft()
            if self._at_worker and self._is_late(request):
                self._refused(request)
                continue
            self._busy += 1
            self._at(self._now + request.needs, self._ends, request)

    def _is_late(self, request: Request) -> bool:
        return self.shedder is not None and bool(self.shedder.on_request(_head(request), self._now, self._rng))

    def _ends(self, request: Request) -> None:
        self._busy -= 1
        request.ended = self._now
        if request.admit is not None:
            # The status by which admission control judges: what came too late is a failure to whoever called.
            request.admit.on_end(End(self._now, 200 if request.good else 504, whole=True))
        self._work()


def _head(request: Request) -> RequestHead:
    headers = [(b"x-request-start", b"t=%.6f" % (WALL + request.at))]
    if request.urgent:
        headers.append((b"x-criticality", b"critical"))
    return RequestHead("GET", "http", "shop", "/", headers)


def simulate(
    shedding: Shedding | None,
    *,
    load: Callable[[float], float] = lambda at: 3.0,
    seconds: float = 30.0,
    warm_up: float = 5.0,
    urgent: float = 0.0,
    seed: int = 1,
) -> Figures:
    """Requests of so many seconds; those that arrive in the warm-up are served and do not count."""
    model = Model(shedding, seed)
    requests = [request for request in model.run(seconds, load, urgent) if request.at >= warm_up]
    stats = {} if model.shedder is None else model.shedder.stats()
    return Figures(requests, seconds - warm_up, stats)
