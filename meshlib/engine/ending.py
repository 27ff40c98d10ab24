"""How a call ends: a response is committed and its body watched, or there is none; and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.engine import facts, grpc_status
from meshlib.engine.commands import BodyEnd, Commit, Fail, Reply, Start
from meshlib.engine.decision import with_route_headers
from meshlib.engine.events import AttemptEnded, CallEnded
from meshlib.engine.filters import LocalReply
from meshlib.engine.judging import judge
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.circuit_breaker import FallbackResponse
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import Classification, classify

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts

Refused = tuple[ResponseFlag, str, bool | FallbackResponse]
"""Why an attempt may not be made: the flag, the reason, and whether it is an open circuit breaker, or what is answered
in its place.
"""
OVERLOADED = (b"x-envoy-overloaded", b"true")
ATTEMPT_COUNT = b"x-envoy-attempt-count"
_NO_CONTENT, _BAD_REQUEST = 204, 400
_TIMEOUT = Failure.TIMEOUT  # looking up a member of an enum costs as much as a call


def commit(call: Attempts, start: Start, outcome: Outcome, verdict: Classification) -> Commit:
    """The response is the caller's."""
    if call.info.attempts > 1 and call.rules is not None and not call.rules.reason(outcome, verdict):
        call.cluster.stats["upstream_rq_retry_success"].add()
    untouched = call.share.response_headers is None and call.set_cookie is None and call.extras is None
    return Commit(outcome, call.info, None if untouched else _response_headers(call, start, outcome))


def _response_headers(call: Attempts, start: Start, outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """The response headers with the route's mutations and the cookie of a cookie hash policy."""
    mutate = call.share.response_headers
    headers = list(outcome.headers or ())
    if call.extras is not None and call.extras.counts_in_response:
        headers = [pair for pair in headers if pair[0].lower() != ATTEMPT_COUNT]
        headers.append((ATTEMPT_COUNT, b"%d" % call.info.attempts))
    if call.set_cookie is not None:
        headers.append((b"set-cookie", call.set_cookie.encode("latin-1")))
    if mutate is None:
        return headers
    return mutate(headers, call.upstream, lambda: facts.of_response(call, start, outcome))


def finished(call: Attempts, start: Start, outcome: Outcome, end: BodyEnd) -> None:
    """The body has ended. A body that breaks is a fault of the endpoint, though its headers were fine; one that
    outlives the call's deadline is not: the caller may be slow, or the stream long.
    """
    info = call.info
    if end.failure is _TIMEOUT:
        call.cluster.stats["upstream_rq_timeout"].add()
        info.flag = info.flag or ResponseFlag.UT
    elif end.failure is not None and end.failure is not Failure.LOCAL:
        broken = Outcome(failure=end.failure)
        broken.at = end.at
        judge(call, start, broken)
        info.flag = info.flag or classify(broken).flag
    elif end.grpc_status is not None:
        trailers = Outcome(outcome.status, outcome.headers, grpc_status=end.grpc_status)
        trailers.at = end.at
        judge(call, start, trailers)
    if outcome.grpc_status is not None:
        info.grpc_status = grpc_status.ended(outcome.grpc_status, end.grpc_status, info.flag)
    if call.runtime.observers:
        ended(call, end.at, outcome.status, info.flag)


def exhausted(call: Attempts, outcome: Outcome, verdict: Classification, now: float) -> Fail | Reply:
    """No response, and no further attempt. The caller may have asked for an answer instead of a time-out."""
    flag = verdict.flag or ResponseFlag.UF
    if flag is ResponseFlag.UT and call.asked is not None and call.asked.alternative_response:
        return answered(call, now, flag, Reply(_NO_CONTENT, [], b"", call.info))
    reason = str(outcome.error) if outcome.error else (outcome.failure or Failure.LOCAL).value
    if call.info.flag is ResponseFlag.URX and call.info.attempts > 1:
        reason += f" (retry limit reached, {ResponseFlag.URX})"
    return fail(call, now, flag, reason, outcome=outcome)


def fail(
    call: Attempts,
    now: float,
    flag: ResponseFlag,
    reason: str,
    open_circuit: bool | FallbackResponse = False,
    outcome: Outcome | None = None,
) -> Fail | Reply:
    """The call failed; its end is told. A circuit breaker may have an answer for that."""
    info = call.info
    if isinstance(open_circuit, FallbackResponse):
        return answered(call, now, flag, _fallback(call, open_circuit))
    info.flag, info.grpc_status = flag, grpc_status.failed(call.head, flag, outcome)
    ended(call, now, None, flag)
    failure = CallFailure(flag, reason, info.route, info.cluster, info.endpoint, info.attempts, open_circuit)
    return Fail(failure, outcome)


def _fallback(call: Attempts, response: FallbackResponse) -> Reply:
    """As Envoy answers for an overflow, it says that the request was not sent on for too much load."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if call.share.tells_upstream:
        headers.append(OVERLOADED)
    reply = LocalReply(response.status, headers, response.body, call.info.flag, "circuit_breaker")
    headers = with_route_headers(call.decision, reply, call.head, call.runtime.wall_clock)
    return Reply(response.status, headers, response.body, call.info, response.grpc_status)


def answered(call: Attempts, now: float, flag: ResponseFlag, reply: Reply) -> Reply:
    """The mesh answers in place of an endpoint."""
    info = call.info
    info.flag, info.grpc_status = flag, grpc_status.answered(call.head, reply.status, reply.grpc_status)
    ended(call, now, reply.status, flag)
    return reply


def refuse_malformed(call: Attempts, name: str, value: str) -> Reply:
    """A header that the router is strict about is malformed: 400, in Envoy's words."""
    body = f"invalid header '{name}' with value '{value}'".encode("latin-1", "replace")
    reply = Reply(_BAD_REQUEST, [(b"content-type", b"text/plain")], body, call.info)
    return answered(call, call.began, ResponseFlag.IH, reply)


def note(call: Attempts, start: Start, outcome: Outcome, sent: float, reason: str) -> None:
    """Tell of an attempt's end; `reason` is the condition that asks for a retry, "" when there is none to be."""
    result = outcome.failure.value if outcome.failure is not None else outcome.status or 0
    cluster, address = call.cluster.name, start.host.address
    call.runtime.emit(
        lambda: AttemptEnded(outcome.at, cluster, address, start.attempt, result, outcome.at - sent, reason)
    )


def ended(call: Attempts, now: float, status: int | None, flag: ResponseFlag | None) -> None:
    """Tell of the call's end."""
    if call.runtime.observers:
        head, info, took = call.head, call.info, now - call.began
        call.runtime.emit(lambda: CallEnded(now, info, head.method, head.authority, head.path_only, status, flag, took))
