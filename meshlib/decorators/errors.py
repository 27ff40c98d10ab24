"""From a refused or failed guarded call to the exception for it.

What the function raised is what the caller sees, with a note; what the mesh refuses is one of `meshlib.errors`, and
also what Python itself would say: a timeout is a `TimeoutError`, an open circuit pybreaker's `CircuitBreakerError`.
"""

from __future__ import annotations

from functools import lru_cache

from meshlib import errors
from meshlib.engine.commands import CallInfo, Fail, Reply
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Outcome
from meshlib.policy.classify import classify
from meshlib.policy.pybreaker_bridge import circuit_open_error_type


def of_failure(fail: Fail) -> BaseException:
    """The exception for a failed call: the function's own, when it raised one."""
    own = fail.outcome.error if fail.outcome is not None else None
    return of_refusal(fail.failure) if own is None else noted(own, str(fail.failure))


def of_reply(reply: Reply) -> errors.CallError:
    """The exception for an answer that a function cannot give: over a limit, a redirect, a direct response."""
    info = reply.info
    flag = info.flag or ResponseFlag.NR
    text = reply.body.decode("utf-8", "replace")
    reason = f"the mesh answers {reply.status} itself{f' ({text})' if text else ''}; the function was not called"
    return of_refusal(CallFailure(flag, reason, info.route, info.cluster))


def of_refusal(failure: CallFailure) -> errors.CallError:
    """One of the mesh's own errors, by flag."""
    return _type_of(errors.error_type(failure).__name__)(failure)


def of_result(outcome: Outcome, info: CallInfo) -> BaseException:
    """The function's own exception where it stands for a response: an HTTP error, say, or one that was excluded."""
    error = outcome.error or RuntimeError(outcome)
    if classify(outcome).success:
        return error
    return noted(error, f"route={info.route}, cluster={info.cluster}, attempts={info.attempts}")


def noted(error: BaseException, text: str) -> BaseException:
    """The exception with one line about what the mesh did; not twice, where one object is raised again and again."""
    note = f"meshlib: {text}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


@lru_cache(maxsize=32)
def _type_of(name: str) -> type[errors.CallError]:
    """Our class, or one that is Python's or pybreaker's too."""
    ours: type[errors.CallError] = getattr(errors, name)
    theirs: type[Exception] | None = None
    if ours is errors.UpstreamTimeoutError:
        theirs = TimeoutError
    elif ours is errors.CircuitOpenError:
        theirs = circuit_open_error_type()
    if theirs is None:
        return ours
    members = {"__init__": ours.__init__, "__reduce__": _reduced, "__module__": ours.__module__}
    return type(name, (ours, theirs), members)


def _reduced(error: errors.CallError) -> tuple[object, ...]:
    """How to pickle a class that no module holds."""
    return of_refusal, (error.failure,)
