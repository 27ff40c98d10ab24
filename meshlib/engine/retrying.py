"""Whether an attempt is followed by another one, and when: the policy's conditions, then all that may forbid it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.backoff import backoff
from meshlib.policy.budget import admit_retry
from meshlib.policy.classify import Classification
from meshlib.policy.retry import PUSHBACK, parse_pushback

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts


def retry(
    call: Attempts, outcome: Outcome, verdict: Classification, number: int, now: float
) -> tuple[float | None, str]:
    """(Seconds to back off, the condition that asks for the retry), or (None, "") when there is none to be."""
    rules = call.rules
    if rules is None:
        return None, ""
    reason = rules.reason(outcome, verdict)
    if not reason:
        return None, ""
    if outcome.request_sent and not call.replayable:
        return _not_retried(call, "not-replayable")
    stats = call.cluster.stats
    if number > rules.num_retries:
        stats["upstream_rq_retry_limit_exceeded"].add()
        call.info.flag = ResponseFlag.URX
        return _not_retried(call, "retry-limit")
    delay = backoff(number, rules.base_interval, rules.max_interval, call.runtime.rng)
    if outcome.grpc_status is not None and (asked := outcome.header(PUSHBACK)) is not None:
        pushed = parse_pushback(asked)
        if pushed is None:
            return _not_retried(call, "pushback")
        delay = pushed
    if call.deadline is not None and now + delay >= call.deadline:
        return _not_retried(call, "deadline")
    if not admit_retry(call.load, call.thresholds, call):
        stats["upstream_rq_retry_overflow"].add()
        return _not_retried(call, "budget")
    stats["upstream_rq_retry"].add()
    return delay, reason


def unseen(call: Attempts, outcome: Outcome) -> bool:
    """Whether a gRPC server said that no application has seen the call: then it is sent once more whatever the policy,
    as every gRPC client does (gRFC A6, transparent retries), or a server that leaves would fail calls.
    """
    if outcome.grpc_status is None or outcome.failure is not Failure.REFUSED_STREAM:
        return False
    if call.transparent or not call.replayable:
        return False
    call.transparent = True
    call.info.flag, call.info.why_not_retried = None, ""
    return True


def _not_retried(call: Attempts, why: str) -> tuple[None, str]:
    call.info.why_not_retried = why
    return None, ""
