"""CallContext: what an incoming request hands on to every outgoing call made while it is served.

Server middleware sets it, clients read it. It travels in a context variable, so it follows tasks and
`asyncio.to_thread`, and is per thread otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from operator import itemgetter

from meshlib.model.lanes import BAGGAGE, with_lane
from meshlib.model.metadata import EMPTY_METADATA, Metadata
from meshlib.model.request import RawHeaders, RequestHead

__all__ = ["CallContext", "CallHead", "call_metadata", "current", "on_lane", "peer", "serving"]

_BAGGAGE = BAGGAGE.encode()


@dataclass(frozen=True, slots=True)
class CallContext:
    """`deadline` is monotonic seconds, None when the caller set none. `headers` (lower-case names) go on every outgoing
    call that does not set them itself: trace context, request id. `peer` is the caller's verified identity (a SPIFFE
    ID), empty when it showed none; it is not handed on. `lane` (`group/lane`) is what the `headers` say of it.
    `metadata` and `filter_state` are what routes may match and hash by beside the request; they leave the process with
    no call.
    """

    deadline: float | None = None
    request_id: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    peer: str = ""
    lane: str = ""
    metadata: Metadata = EMPTY_METADATA
    filter_state: tuple[tuple[str, str], ...] = ()

    def until(self, deadline: float | None) -> CallContext:
        """The same with another deadline."""
        if deadline == self.deadline:
            return self
        return replace(self, deadline=deadline)

    def added_to(self, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        """The headers of a call with the context's own, but for those the call sets itself. Baggage of the call's own
        does not take it off its lane.
        """
        present = {name.lower() for name, _ in headers}
        added = [*headers, *(pair for pair in self.headers if pair[0] not in present)]
        if self.lane and _BAGGAGE in present:
            added.append((_BAGGAGE, with_lane("", self.lane).encode("latin-1")))
        return added


NO_CONTEXT = CallContext()
current: ContextVar[CallContext] = ContextVar("meshlib_call_context", default=NO_CONTEXT)


@contextlib.contextmanager
def serving(context: CallContext) -> Iterator[None]:
    """Serve in a context, and leave none behind with whoever calls the application directly (a test client)."""
    token = current.set(context)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # closed from another context, as an abandoned coroutine is
            current.reset(token)


class CallHead(RequestHead):
    """The head of a call: it carries the dynamic metadata and filter state of the context it is made in."""

    __slots__ = ()

    @property
    def metadata(self) -> Metadata:
        """The context's."""
        return current.get().metadata

    @property
    def filter_state(self) -> Mapping[str, str]:
        """The context's."""
        return dict(current.get().filter_state)


@contextlib.contextmanager
def call_metadata(
    metadata: Mapping[str, Mapping[str, object]] | None = None, filter_state: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Give the calls made inside dynamic metadata (`{namespace: {key: value}}`, JSON-like) and filter state, for routes
    that match by `dynamic_metadata` or `filter_state`, and for hash policies of `filter_state`. A namespace or key
    takes the place of an outer one. Raises TypeError for a value that is not JSON.
    """
    context = current.get()
    namespaces = dict(context.metadata.namespaces) | dict(Metadata.of(metadata or {}).namespaces)
    state = dict(context.filter_state) | dict(filter_state or {})
    inside = replace(
        context,
        metadata=Metadata(tuple(sorted(namespaces.items(), key=itemgetter(0)))),
        filter_state=tuple(state.items()),
    )
    with serving(inside):
        yield


@contextlib.contextmanager
def on_lane(lane: str) -> Iterator[None]:
    """Put the calls made inside on a lane, `"group/lane"`: for jobs, consoles and tests, where no request brings one.
    Raises ValueError for anything else.
    """
    group, slash, name = lane.partition("/")
    if not group or not slash or not name:
        raise ValueError(f"{lane!r} is no lane: 'group/lane' is")
    context = current.get()
    baggage = b",".join(value for key, value in context.headers if key == _BAGGAGE).decode("latin-1")
    others = tuple(pair for pair in context.headers if pair[0] != _BAGGAGE)
    said = (_BAGGAGE, with_lane(baggage, lane).encode("latin-1"))
    with serving(replace(context, headers=(*others, said), lane=lane)):
        yield


def peer() -> str:
    """The verified identity of whoever asked for what is being served: a SPIFFE ID; empty when there is none."""
    return current.get().peer
