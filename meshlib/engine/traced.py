"""Following a call flow from outside, for tracing: what it yields and is sent says all there is to say.

So the stages themselves know nothing of spans, and a call that is not traced pays nothing for those that are.
"""

from __future__ import annotations

from typing import Any

from meshlib.engine.commands import Abandoned, BodyEnd, CallInfo, Commit, Fail, Flow, PassThrough, Reply, Start, Wait
from meshlib.telemetry.tracing import CallTrace


def traced(flow: Flow, trace: CallTrace, now: float) -> Flow:
    """The same flow, with `trace` told of it. However it ends, both end."""
    info: CallInfo | None = None
    status = None
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
        trace.ended(now, info, status)


def _finish(flow: Flow, end: BodyEnd) -> None:
    try:
        flow.send(end)
    except StopIteration:
        return


def _facts(fail: Fail) -> CallInfo:
    failure = fail.failure
    return CallInfo("", failure.route, failure.cluster, failure.endpoint, failure.attempts, failure.flag)
