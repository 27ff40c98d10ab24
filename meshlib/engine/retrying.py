"""Whether an attempt is followed by another one, and when: the policy's conditions, then all that may forbid it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.backoff import asked_for, backoff, lower_bounded
from meshlib.policy.budget import admit_retry
from meshlib.policy.classify import Classification
from meshlib.policy.retry import PUSHBACK, RetryRules, parse_pushback

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
    delay = grant(call, outcome, number, now)
    return (None, "") if delay is None else (delay, reason)


def grant(call: Attempts, outcome: Outcome, number: int, now: float) -> float | None:
    """Seconds to back off before the retry after attempt `number`, None when there may be none."""
    rules = call.rules
    if rules is None:
        return None
    if outcome.request_sent and not call.replayable:
        return _not_retried(call, "not-replayable")
    stats = call.cluster.stats
    if number > rules.num_retries:
        stats["upstream_rq_retry_limit_exceeded"].add()
        call.info.flag = ResponseFlag.URX
        return _not_retried(call, "retry-limit")
    delay = _delay(call, rules, outcome, number)
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
    return delay


def _delay(call: Attempts, rules: RetryRules, outcome: Outcome, number: int) -> float:
    """What the response asks for, where the policy listens to it, else the exponential back-off."""
    limited, rng = rules.rate_limited_back_off, call.runtime.rng
    if limited is not None and outcome.headers is not None:
        interval = asked_for(limited, outcome, call.runtime.wall_clock())
        if interval is not None:
            call.cluster.stats["upstream_rq_retry_backoff_ratelimited"].add()
            return lower_bounded(interval, rng)
    call.cluster.stats["upstream_rq_retry_backoff_exponential"].add()
    return backoff(number, rules.base_interval, rules.max_interval, rng)


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


def _not_retried(call: Attempts, why: str) -> float | None:
    call.info.why_not_retried = why
    return None
