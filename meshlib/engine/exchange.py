"""The server's mirror of the call flow: what happens to a request before the application sees it.

Order: who it belongs to (request id, trace), then whether it is still wanted (deadline), then whether it may pass
(filters). A request that nobody waits for any more must not even take a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from meshlib.context import CallContext
from meshlib.engine.ends import Admit
from meshlib.engine.filters import Filter, LocalReply
from meshlib.engine.lanes import handed_on
from meshlib.engine.pauses import Pause
from meshlib.engine.rng import Randomness
from meshlib.engine.watch import Endings, RequestWatch, Watch
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.policy import deadline as deadlines
from meshlib.routing.lanes import LaneRules
from meshlib.telemetry.propagation import new_request_id, valid_request_id
from meshlib.telemetry.propagators import DEFAULT, Propagation

REQUEST_ID = "x-request-id"
_REQUEST_ID = REQUEST_ID.encode("ascii")
_DEADLINE_EXCEEDED = 4
READ = {
    name.encode("ascii"): name
    for name in (
        deadlines.EXPECTED_TIMEOUT_HEADER,
        deadlines.GRPC_TIMEOUT_HEADER,
        REQUEST_ID,
        "traceparent",
        "tracestate",
    )
}
"""The headers that are read of every request, by their bytes. Where filters read others too, a server looks for all of
them at once: `READ | {...}`.
"""


class Admission:
    """The context to serve the request in, and the answer if it is not to be served. `watch` wants to be told of the
    request's end, whether it is telemetry's (`watched_by`) or that of filters that said `Admit`. `headers` are set on
    the application's response, in the place of those of the same names; `head` is the request as the application is to
    see it, None where no filter changed it.

    While there is a `pause` neither is known: a driver (`meshlib.drivers.inbound`) does what it asks for, and tells
    `go_on`. `decided` is called when it is known. `response_limit`: bytes a second that filters leave of the response's
    body.
    """

    __slots__ = ("_rest", "context", "decided", "head", "headers", "pause", "reply", "response_limit", "watch")

    def __init__(self, context: CallContext, reply: LocalReply | None) -> None:
        self.context = context
        self.reply = reply
        self.watch: Watch | None = None
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.head: RequestHead | None = None
        self.pause: Pause | None = None
        self.decided: Callable[[], None] | None = None
        self.response_limit: int | None = None
        self._rest: Callable[[float], None] | None = None

    def begin(self, filters: Sequence[Filter], head: RequestHead, now: float, rng: Randomness) -> None:
        """Ask the filters, to the first that answers or wants a pause."""
        for index, item in enumerate(filters):
            verdict = item.on_request(head, now, rng)
            if verdict is None:
                continue
            if isinstance(verdict, Admit):
                self._hear(verdict, now)
                head = verdict.head or head
            else:
                self._take(verdict, partial(self._resume, filters[index + 1 :], head, rng))
                return

    def _resume(self, filters: Sequence[Filter], head: RequestHead, rng: Randomness, now: float) -> None:
        self.begin(filters, self.head or head, now, rng)

    def go_on(self, answer: Any, now: float) -> None:
        """What came of the pause, and what time it is now."""
        pause, rest = self.pause, self._rest
        if pause is None:
            return
        self.pause = self._rest = None
        if deadlines.expired(self.context.deadline, now):
            pause.give_up()
            self.reply = _late(b"the request's deadline passed while a filter held it")
        else:
            verdict = pause.then(answer, now)
            if isinstance(verdict, Admit):
                self._hear(verdict, now)
                verdict = None
            if verdict is not None:
                self._take(verdict, rest)
            elif rest is not None:
                rest(now)
        self._tell()

    def _tell(self) -> None:
        if self.pause is None and self.decided is not None:
            self.decided()

    def give_up(self, now: float) -> None:
        """The caller has gone away."""
        pause, self.pause = self.pause, None
        if pause is not None:
            pause.give_up()
        if self.watch is not None:
            self.watch.ended(now, None)

    def watched_by(self, watch: RequestWatch | None) -> None:
        """Telemetry looks on, or does not."""
        if isinstance(self.watch, Endings):
            self.watch.inner = watch
        else:
            self.watch = watch

    def _hear(self, admit: Admit, now: float) -> None:
        self.response_limit = admit.slowest(self.response_limit)
        if admit.head is not None:
            self.head = admit.head
        if admit.on_response is not None:
            self.headers = (*self.headers, *admit.on_response(now))
        if admit.on_end is None:
            return
        watch = self.watch
        if isinstance(watch, Endings):
            watch.add(admit)
        else:
            self.watch = Endings(now, admit, watch)

    def left(self, seconds: float, now: float) -> float:
        """Of a delay what there is time for."""
        deadline = self.context.deadline
        return seconds if deadline is None else max(0.0, min(seconds, deadline - now))

    def _take(self, verdict: LocalReply | Pause, rest: Callable[[float], None] | None) -> None:
        if isinstance(verdict, Pause):
            self.pause, self._rest = verdict, rest
        else:
            if self.headers:  # of filters before it, which see every response
                verdict.headers = [*verdict.headers, *self.headers]
            self.reply = verdict


def _late(body: bytes) -> LocalReply:
    return LocalReply(504, [], body, ResponseFlag.UT, "deadline", _DEADLINE_EXCEEDED)


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
    reads: Mapping[bytes, str] = READ,
) -> CallContext:
    """What a request brings with it. A deadline can only shorten what follows, so it is believed from anyone.

    `timeout`: seconds the transport itself gives the request (a gRPC server hides the header). `peer`: the caller's
    identity, as the transport has verified it. `propagation`: which trace headers and what baggage go on. `lanes`: the
    request's lane is chosen here, if nobody before has, and goes on in any case. `reads`: the headers to look for.
    """
    head.look_for(reads)
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
    reads: Mapping[bytes, str] = READ,
) -> Admission:
    """Decide whether a request reaches the application, and in which context (`inbound_context`). A filter may want a
    pause first.
    """
    context = inbound_context(
        head, now, rng, timeout=timeout, peer=peer, propagation=propagation, lanes=lanes, reads=reads
    )
    if deadlines.expired(context.deadline, now):
        return Admission(context, _late(b"the request's deadline had passed on arrival"))
    admission = Admission(context, None)
    if filters:
        head.peer = peer
        admission.begin(filters, head, now, rng)
    return admission
