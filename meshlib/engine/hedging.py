"""Attempts that overlap: at the per-try timeout a slow attempt goes on, and another one begins beside it.

Envoy's `hedge_on_per_try_timeout`. The first good response is the call's; the other attempts are cancelled. A response
that would have been retried, and may not be, waits for the others: it is the call's only if they bring nothing better.
Another attempt needs all that a retry needs: retries left, a budget, time, a request that can be sent again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from meshlib.engine import grpc_status
from meshlib.engine.circuits import permitted
from meshlib.engine.commands import Abandoned, BodyEnd, Cancel, Command, Discard, Flow, Launch, Listen, Start
from meshlib.engine.ending import Refused, commit, ended, exhausted, fail, finished, note
from meshlib.engine.judging import detect, judge
from meshlib.engine.retrying import grant, retry, unseen
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import Classification, classify

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts


def slow_at(now: float) -> Outcome:
    """An attempt that has had its time."""
    outcome = Outcome(failure=Failure.PER_TRY_TIMEOUT)
    outcome.at = now
    return outcome


_SLOW = classify(Outcome(failure=Failure.PER_TRY_TIMEOUT))


def race(call: Attempts) -> Flow:
    """Attempt until a response is committed or nothing more may be tried. The driver cancels what still runs when the
    flow is closed.
    """
    runners = _Race(call)
    try:
        yield from runners.run()
    except Abandoned as gone:
        call.info.flag, call.info.grpc_status = ResponseFlag.DC, grpc_status.failed(call.head, ResponseFlag.DC)
        ended(call, gone.at, None, ResponseFlag.DC)
        raise
    finally:
        for start in runners.running:
            call.give_back(start)
        call.load.retries.pop(call, None)


class _Race:
    """`running`: when each attempt was sent. `slow_at`: when those are slow that are not yet. `due`: when further ones
    begin. `granted` counts the attempts that were let in, `retried` holds those that another one was begun for.
    """

    __slots__ = ("call", "due", "granted", "number", "retried", "running", "slow_at")

    def __init__(self, call: Attempts) -> None:
        self.call = call
        self.running: dict[Start, float] = {}
        self.slow_at: dict[Start, float] = {}
        self.retried: set[Start] = set()
        self.due = [call.began]
        self.granted = 1
        self.number = 0

    def run(self) -> Flow:
        """Begin what is due, hear of what ends or is slow, until one response is the call's."""
        now = self.call.began
        while True:
            if self.due and now >= min(self.due):
                self.due.remove(min(self.due))
                start, refused = self._next(now)
                if start is not None:
                    now = yield Launch(start)
                elif not self.running and not self.due:
                    yield fail(self.call, now, *refused)
                    return
                continue
            heard = yield Listen(self._until())
            if isinstance(heard, float):
                now = heard
                if self.call.deadline is not None and now >= self.call.deadline:
                    yield from self._out_of_time(now)
                    return
                self._slow(now)
                continue
            start, outcome = heard
            now = outcome.at
            over = yield from self._ended(start, outcome)
            if over:
                return

    def _until(self) -> float | None:
        """When there is something to do though nothing has ended."""
        deadline = () if self.call.deadline is None else (self.call.deadline,)
        return min((*self.slow_at.values(), *self.due, *deadline), default=None)

    def _next(self, now: float) -> tuple[Start | None, Refused]:
        """The next attempt, admitted; or why there is none."""
        call = self.call
        host = call.pick(now)
        if host is None or call.cluster.circuits is not None:
            host, nobody = permitted(call, host, now)
            if host is None:
                return None, nobody
        self.number += 1
        start = call.start(self.number, host, now)
        self.running[start] = now
        refused = call.admit(start, now)
        if refused is not None:
            self._leave(start)
            return None, refused
        call.tried.append(host)
        per_try = call.rules.per_try_timeout if call.rules is not None else None
        if per_try:
            self.slow_at[start] = now + per_try
        return start, _ADMITTED

    def _slow(self, now: float) -> None:
        """Those that have had their time: outlier detection hears of it, and another attempt may begin."""
        call = self.call
        for start in [start for start, at in self.slow_at.items() if at <= now]:
            del self.slow_at[start]
            start.cluster.stats["upstream_rq_per_try_timeout"].add()
            if start.cluster.detector is not None:
                detect(call, start, _SLOW, now)
            if start.cluster.observe is not None:  # it will be cancelled, and never be heard of again
                start.cluster.observe(start, slow_at(now), _SLOW)
            if call.rules is None or not call.rules.policy.retry_on:
                continue  # a policy that retries nothing hedges nothing, as in Envoy
            delay = grant(call, Outcome(failure=Failure.PER_TRY_TIMEOUT), self.granted, now)
            if delay is not None:
                call.after_timeout = True
                self._again(start, now + delay)

    def _again(self, start: Start, at: float) -> None:
        self.granted += 1
        self.retried.add(start)
        self.due.append(at)

    def _ended(self, start: Start, outcome: Outcome) -> Generator[Command, Any, bool]:
        """An attempt has ended. Whether the call has."""
        call, now = self.call, outcome.at
        sent = self.running[start]
        was_slow = self.slow_at.pop(start, None) is None and outcome.failure is Failure.TIMEOUT
        verdict = judge(call, start, outcome, was_slow=was_slow)
        delay, reason, wanted = self._retry(start, outcome, verdict)
        if call.runtime.observers:
            note(call, start, outcome, sent, reason)
        final = outcome.failure is Failure.TIMEOUT  # the call's own time is over, so it is for all of them
        others = len(self.running) > 1 or bool(self.due)
        if delay is None and outcome.failure is None and not (wanted and others):
            yield from self._won(start, outcome, verdict)
            return True
        self._leave(start)
        if outcome.failure is None:
            yield Discard(outcome)
        if delay is not None:
            call.after_timeout = False
            self._again(start, now + delay)
        elif final or not others:
            if not final and unseen(call, outcome):
                self.due.append(now)
                return False
            yield from self._cancel_all(now)
            yield exhausted(call, outcome, verdict, now)
            return True
        return False

    def _retry(self, start: Start, outcome: Outcome, verdict: Classification) -> tuple[float | None, str, bool]:
        """(Seconds to back off or None, the condition, whether a retry was wanted). An attempt that another one was
        begun for already is not retried once more.
        """
        call = self.call
        wanted = bool(call.rules is not None and call.rules.reason(outcome, verdict))
        if start in self.retried:
            return None, "", wanted
        delay, reason = retry(call, outcome, verdict, self.granted, outcome.at)
        return delay, reason, wanted

    def _won(self, start: Start, outcome: Outcome, verdict: Classification) -> Flow:
        """The response is the call's: the others are cancelled before it is handed over."""
        call = self.call
        call.info.attempts, call.info.cluster, call.info.endpoint = (
            start.attempt,
            start.cluster.name,
            start.host.address,
        )
        if not (call.rules is not None and call.rules.reason(outcome, verdict)):
            call.info.flag, call.info.why_not_retried = None, ""  # what kept a slow one from being hedged did no harm
        self.slow_at.clear()
        self.due.clear()
        for other in [other for other in self.running if other is not start]:
            yield from self._cancel(other, outcome.at)
        end: BodyEnd = yield commit(call, start, outcome, verdict)
        finished(call, start, outcome, end)

    def _out_of_time(self, now: float) -> Flow:
        """The call's time is over, and so it is for every attempt: all of them have been too slow."""
        late = Outcome(failure=Failure.TIMEOUT)
        late.at = now
        for start in list(self.running):
            judge(self.call, start, late, was_slow=start not in self.slow_at)
        yield from self._cancel_all(now)
        yield exhausted(self.call, late, classify(late), now)

    def _cancel_all(self, now: float) -> Flow:
        for start in list(self.running):
            yield from self._cancel(start, now)

    def _cancel(self, start: Start, now: float) -> Flow:
        call = self.call
        sent = self.running[start]
        self._leave(start)
        start.cluster.stats["upstream_rq_tx_reset"].add()
        lost = Outcome(failure=Failure.LOCAL)
        lost.at = yield Cancel(start)
        if call.runtime.observers:
            note(call, start, lost, sent, "")

    def _leave(self, start: Start) -> None:
        self.running.pop(start, None)
        self.slow_at.pop(start, None)
        self.call.give_back(start)


_ADMITTED: Refused = (ResponseFlag.UO, "", False)
