"""Load bias: an endpoint that says it has too much to do gets less for a while, before anybody has to eject it.

An answer of 429, of gRPC's RESOURCE_EXHAUSTED, or an error with `Retry-After` is quick, so that to a balancer that goes
by load the endpoint looks idle. For as long as it asks for it is taken to have some requests more in flight than it has
(Linkerd makes its load heavier; here every balancer that compares requests in flight sees the same).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.cluster import LoadBias
from meshlib.model.outcome import Outcome
from meshlib.policy.classify import Classification
from meshlib.state.cells import Bias, ClusterState, EndpointState

if TYPE_CHECKING:
    from meshlib.engine.commands import Start
    from meshlib.engine.observing import Observe

_TOO_MANY = 429
_RESOURCE_EXHAUSTED = 8
_ERRORS = 400  # and above; a redirect may say Retry-After too, and means something else


def hearing(also: Observe | None) -> Observe:
    """Hears how attempts end, and passes that on to what else wants to."""

    def observe(start: Start, outcome: Outcome, verdict: Classification) -> None:
        if also is not None:
            also(start, outcome, verdict)
        state = start.cluster.state
        bias: LoadBias | None = state.load_bias  # of the plan in force: nobody else would ever take it off
        asked = None if bias is None else _asked(bias, outcome)
        if bias is not None and asked is not None:
            until = outcome.at + asked
            _weigh(state, start.host.cell, bias.requests, until)
            start.cluster.next_sweep = min(start.cluster.next_sweep, until)

    return observe


def lift(state: ClusterState, now: float, bias: LoadBias | None) -> float:
    """Take off what is over, without a bias everything; when that is next to be done, at the latest."""
    for cell, one in list(state.biases.items()):
        if bias is None or one.until <= now:
            state.biases.pop(cell, None)
            for token in one.tokens:
                cell.live.pop(token, None)
    if bias is None:
        return float("inf")
    return min((one.until for one in list(state.biases.values())), default=now + bias.duration)


def _asked(bias: LoadBias, outcome: Outcome) -> float | None:
    """The seconds an answer asks to be spared for; None: it does not."""
    status = outcome.status
    if status is None:
        return bias.duration if outcome.grpc_status == _RESOURCE_EXHAUSTED else None
    said = outcome.header("retry-after") if status >= _ERRORS else None
    if said is not None and said.isascii() and said.isdigit() and len(said) < 10:
        return min(max(float(said), 1.0), bias.max_duration)
    overloaded = status == _TOO_MANY or outcome.grpc_status == _RESOURCE_EXHAUSTED or said is not None
    return bias.duration if overloaded else None


def _weigh(state: ClusterState, cell: EndpointState, requests: int, until: float) -> None:
    fresh = Bias(tuple(object() for _ in range(requests)), until)
    known = state.biases.setdefault(cell, fresh)
    if known is fresh:
        cell.live.update(dict.fromkeys(fresh.tokens))
    known.until = max(known.until, until)
