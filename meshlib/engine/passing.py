"""Requests that a filter lets pass with something added: to the request, to its response, or when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshlib.engine.commands import Abandoned, Commit, Flow, Reply
from meshlib.model.request import RawHeaders, RequestHead

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Passed:
    """A filter's verdict: the request passes. `request_headers` are added to it, `response_headers` to whatever
    response it gets. `ended` is called once when it has ended, however that was.
    """

    request_headers: Headers = ()
    response_headers: Headers = ()
    ended: Callable[[], None] | None = None

    def changed(self, head: RequestHead) -> RequestHead:
        """The request with what is added to it."""
        return with_headers(head, self.request_headers)


def with_headers(head: RequestHead, added: Headers) -> RequestHead:
    """The same request with more headers; itself where there are none."""
    return head.like(head.path, [*head.headers, *added]) if added else head


def passing(flow: Flow, passed: Passed) -> Flow:
    """The rest of a call that a filter has let pass."""
    try:
        command = next(flow)
        while True:
            if passed.response_headers and isinstance(command, Commit | Reply):
                _add(command, passed.response_headers)
            command = flow.send((yield command))
    except StopIteration:
        return
    except Abandoned as gone:
        flow.throw(gone)
        raise
    finally:
        flow.close()
        if passed.ended is not None:
            passed.ended()


def _add(command: Commit | Reply, added: Headers) -> None:
    before: RawHeaders | None = command.headers
    if before is None and isinstance(command, Commit):
        before = command.outcome.headers
    command.headers = [*(before or ()), *added]
