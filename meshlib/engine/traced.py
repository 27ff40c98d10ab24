"""Following a call flow from outside, for tracing: what it yields and is sent says all there is to say.

So the stages themselves know nothing of spans, and a call that is not traced pays nothing for those that are.
"""

from __future__ import annotations

from typing import Any

from meshlib.engine.commands import (
    Abandoned,
    BodyEnd,
    CallInfo,
    Cancel,
    Commit,
    Fail,
    Flow,
    Launch,
    Overlap,
    PassThrough,
    Reply,
    Start,
    Wait,
)
from meshlib.model.outcome import Outcome
from meshlib.telemetry.tracing import CallTrace


def traced(flow: Flow, trace: CallTrace, now: float) -> Flow:
    """The same flow, with `trace` told of it. However it ends, both end."""
    info: CallInfo | None = None
    status = None
    race = _Race(trace)
    try:
        command = next(flow)
        while True:
            if isinstance(command, Start):
                info = command.info
                command.head = trace.attempt(command.attempt, command.cluster.name, command.host, command.head, now)
                outcome = yield command
                now = outcome.at
                trace.attempted(outcome)
                command = flow.send(outcome)
            elif isinstance(command, Overlap):
                info = race.tells(command, now) or info
                heard: Any = yield command
                now = race.heard(command, heard)
                command = flow.send(heard)
            elif isinstance(command, Commit):
                info, status = command.info, command.outcome.status
                end: BodyEnd = yield command
                now = end.at
                _finish(flow, end)
                return
            elif isinstance(command, Fail):
                info = info or _facts(command)
                trace.refused(command.failure.reason)
                yield command
                return
            elif isinstance(command, Reply):
                info, status = command.info, command.status
                yield command
                return
            elif isinstance(command, PassThrough):
                trace.forget()  # as if there were no mesh; whoever traces the other transport does so
                yield command
                return
            else:
                if isinstance(command, Wait):
                    trace.retrying(command.seconds, now)
                answer: Any = yield command
                now = answer if isinstance(answer, float) else answer[1]
                command = flow.send(answer)
    except Abandoned as gone:
        now = gone.at
        flow.throw(gone)
    finally:
        flow.close()
        race.over(now)
        trace.ended(now, info, status)


class _Race:
    """The attempts that overlap, of a call that hedges."""

    __slots__ = ("_running", "_trace")

    def __init__(self, trace: CallTrace) -> None:
        self._trace = trace
        self._running: dict[Start, object] = {}

    def tells(self, command: Overlap, now: float) -> CallInfo | None:
        """An attempt may begin: then it is sent with its own trace headers, and says what is known of the call."""
        if not isinstance(command, Launch):
            return None
        start, host = command.start, command.start.host
        start.head, self._running[start] = self._trace.beside(start.attempt, start.cluster.name, host, start.head, now)
        return start.info

    def heard(self, command: Overlap, answer: Any) -> float:
        """An attempt may have ended. What time it is now."""
        now: float = answer if isinstance(answer, float) else answer[1].at
        if isinstance(command, Cancel):
            self._ended(command.start, None, now)
        elif not isinstance(answer, float):
            start, outcome = answer
            self._ended(start, outcome, now)
        return now

    def over(self, now: float) -> None:
        """Whatever still runs has been given up."""
        for start in list(self._running):
            self._ended(start, None, now)

    def _ended(self, start: Start, outcome: Outcome | None, now: float) -> None:
        attempt = self._running.pop(start, None)
        if attempt is not None:
            self._trace.beside_ended(attempt, outcome, now)


def _finish(flow: Flow, end: BodyEnd) -> None:
    try:
        flow.send(end)
    except StopIteration:
        return


def _facts(fail: Fail) -> CallInfo:
    failure = fail.failure
    return CallInfo("", failure.route, failure.cluster, failure.endpoint, failure.attempts, failure.flag)
