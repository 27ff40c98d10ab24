"""Filters that want to hear the end of what they let pass: `on_request` gives `Admit` in place of None.

A route, or a server, whose filters never do pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.engine import grpc_status
from meshlib.engine.commands import Abandoned, BodyEnd, CallInfo, Command, Commit, Fail, Flow, PassThrough, Reply

if TYPE_CHECKING:
    from meshlib.engine.decision import Decision
    from meshlib.engine.filters import Filter
    from meshlib.engine.table import VirtualHostPlan
    from meshlib.flags import ResponseFlag
    from meshlib.model.request import RequestHead

_GRPC = "application/grpc"
_TERMINAL = (Commit, Reply, Fail, PassThrough)


class End:
    """How a request ended, or a call. `at`: monotonic seconds. `status` is None when there was no response (the caller
    went away, or the request was passed through), of a failed call what a proxy answers. `grpc_status` is None for
    anything but gRPC, `flag` set where the mesh itself answered, a filter behind this one perhaps. `whole`: it came to
    its end, body included; not where somebody gave it up, or where it broke.
    """

    __slots__ = ("at", "flag", "grpc_status", "status", "whole")

    def __init__(
        self,
        at: float,
        status: int | None = None,
        grpc_status: int | None = None,
        flag: ResponseFlag | None = None,
        whole: bool = False,
    ) -> None:
        self.at = at
        self.status = status
        self.grpc_status = grpc_status
        self.flag = flag
        self.whole = whole


class Admit:
    """The request may pass, and `on_end` is to hear of its end: exactly once, however it ends, on whichever thread it
    ends. It must be quick and must not raise. A filter that holds nothing of the one request may give the same Admit
    each time.

    `head` is the request as whoever comes after this filter is to see it, None where it stays as it is. `on_response`
    is given the time of the response, if there is one, and gives headers that are added to it. `response_limit`: bytes
    a second of the response's body (None: no limit).
    """

    __slots__ = ("head", "on_end", "on_response", "response_limit")

    def __init__(
        self,
        on_end: Callable[[End], None] | None = None,
        *,
        head: RequestHead | None = None,
        on_response: Callable[[float], list[tuple[bytes, bytes]]] | None = None,
        response_limit: int | None = None,
    ) -> None:
        self.on_end = on_end
        self.head = head
        self.on_response = on_response
        self.response_limit = response_limit

    def slowest(self, limit: int | None) -> int | None:
        """Its `response_limit` beside that of filters before it."""
        own = self.response_limit
        return limit if own is None or (limit is not None and limit < own) else own


@dataclass(slots=True)
class Admitted:
    """Where a call goes on whose end a filter wants to hear: what is decided by then, and the filters still to ask."""

    host: VirtualHostPlan
    decision: Decision
    info: CallInfo
    filters: tuple[Filter, ...]


def followed(admit: Admit, flow: Flow, head: RequestHead, now: float) -> Flow:
    """The rest of a call, with its end told to `admit`: before the caller hears of it, where there is no body."""
    end, told = End(now), False
    try:
        command = next(flow)
        while not isinstance(command, _TERMINAL):
            answer: Any = yield command
            end.at = _time(answer)
            command = flow.send(answer)
        if admit.on_response is not None and isinstance(command, Commit | Reply):
            end.at = command.outcome.at if isinstance(command, Commit) else end.at
            _add(command, admit.on_response(end.at))
        if isinstance(command, Commit):
            end.status = command.outcome.status
            over: BodyEnd = yield command
            end.at, end.whole = over.at, over.failure is None
            _finish(flow, over)
            end.grpc_status, end.flag = _status_of(command), command.info.flag
        else:
            _answered(end, command, head)
            told = True
            if admit.on_end is not None:
                admit.on_end(end)
            yield command
    except Abandoned as gone:
        end.at = gone.at
        flow.throw(gone)
    finally:
        flow.close()
        if not told and admit.on_end is not None:
            admit.on_end(end)


def _time(answer: Any) -> float:
    """The time that a driver's answer tells: a number, an outcome, or a pair that ends in either."""
    last = answer[1] if isinstance(answer, tuple) else answer
    return last if isinstance(last, float) else float(last.at)


def _status_of(commit: Commit) -> int | None:
    """The gRPC status of a call; also of one that was made as a plain HTTP request, where its headers tell."""
    if commit.info.grpc_status is not None:
        return commit.info.grpc_status
    told = commit.outcome.header("grpc-status")
    if told is None or not told.isdecimal() or not (commit.outcome.header("content-type") or "").startswith(_GRPC):
        return None
    return int(told)


def _answered(end: End, command: Command, head: RequestHead) -> None:
    if isinstance(command, Reply):
        end.status, end.grpc_status, end.flag = command.status, command.info.grpc_status, command.info.flag
        end.whole = True
    elif isinstance(command, Fail):
        failure = command.failure
        end.status, end.flag, end.whole = failure.http_status, failure.flag, True
        end.grpc_status = grpc_status.failed(head, failure.flag, command.outcome, failure.status)


def _add(command: Commit | Reply, headers: list[tuple[bytes, bytes]]) -> None:
    before = command.headers
    if before is None and isinstance(command, Commit):
        before = list(command.outcome.headers or ())
    command.headers = [*(before or ()), *headers]


def _finish(flow: Flow, end: BodyEnd) -> None:
    try:
        flow.send(end)
    except StopIteration:
        return
