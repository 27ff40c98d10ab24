"""The server's mirror of the call flow: what happens to a request before the application sees it.

Order: who it belongs to (request id, trace), then whether it is still wanted (deadline), then whether it may pass
(filters). A request that nobody waits for any more must not even take a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meshlib.context import CallContext
from meshlib.engine.filters import Filter, LocalReply
from meshlib.engine.lanes import handed_on
from meshlib.engine.rng import Randomness
from meshlib.engine.watch import RequestWatch
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.policy import deadline as deadlines
from meshlib.routing.lanes import LaneRules
from meshlib.telemetry.propagation import new_request_id, valid_request_id
from meshlib.telemetry.propagators import DEFAULT, Propagation

REQUEST_ID = "x-request-id"
_REQUEST_ID = REQUEST_ID.encode("ascii")
_DEADLINE_EXCEEDED = 4
_READ = {
    name.encode("ascii"): name
    for name in (
        deadlines.EXPECTED_TIMEOUT_HEADER,
        deadlines.GRPC_TIMEOUT_HEADER,
        REQUEST_ID,
        "traceparent",
        "tracestate",
    )
}


@dataclass(slots=True)
class Admission:
    """The context to serve the request in, and the answer if it is not to be served. `watch` wants to be told of the
    request's end. `headers` are set on the application's response, in the place of those of the same names.
    """

    context: CallContext
    reply: LocalReply | None
    watch: RequestWatch | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Lanes(NamedTuple):
    """What it takes to choose the lane of a request: the rules in force, its sender, the time of the epoch."""

    rules: LaneRules
    source_ip: str
    wall: float


def inbound_context(
    head: RequestHead,
    now: float,
    rng: Randomness,
    *,
    timeout: float | None = None,
    peer: str = "",
    propagation: Propagation = DEFAULT,
    lanes: Lanes | None = None,
) -> CallContext:
    """What a request brings with it. A deadline can only shorten what follows, so it is believed from anyone.

    `timeout`: seconds the transport itself gives the request (a gRPC server hides the header). `peer`: the caller's
    identity, as the transport has verified it. `propagation`: which trace headers and what baggage go on. `lanes`: the
    request's lane is chosen here, if nobody before has, and goes on in any case.
    """
    head.look_for(_READ)
    told = deadlines.inherited(head.get(deadlines.EXPECTED_TIMEOUT_HEADER), head.get(deadlines.GRPC_TIMEOUT_HEADER))
    given = head.get(REQUEST_ID)
    request_id = given if given and valid_request_id(given) else new_request_id(rng)
    headers = (*propagation.handed_on(head), (_REQUEST_ID, request_id.encode("ascii")))
    if lanes is not None and (lane := lanes.rules.choose(head, lanes.source_ip, lanes.wall, rng)):
        headers = tuple(handed_on(headers, lane))
    else:
        lane = ""
    return CallContext(deadlines.effective(now, told, timeout), request_id, headers, peer, lane)


def admit_request(
    head: RequestHead,
    now: float,
    filters: Sequence[Filter],
    rng: Randomness,
    *,
    timeout: float | None = None,
    peer: str = "",
    propagation: Propagation = DEFAULT,
    lanes: Lanes | None = None,
) -> Admission:
    """Decide whether a request reaches the application, and in which context (`inbound_context`)."""
    context = inbound_context(head, now, rng, timeout=timeout, peer=peer, propagation=propagation, lanes=lanes)
    if deadlines.expired(context.deadline, now):
        body = b"the request's deadline had passed on arrival"
        return Admission(context, LocalReply(504, [], body, ResponseFlag.UT, "deadline", _DEADLINE_EXCEEDED))
    for item in filters:
        reply = item.on_request(head, now, rng)
        if reply is not None:
            return Admission(context, reply)
    return Admission(context, None)
