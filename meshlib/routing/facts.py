"""What is known of a call when a text with `%...%` operators is made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshlib.model.metadata import EMPTY_METADATA, Metadata
from meshlib.model.request import RawHeaders, RequestHead


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Facts of a call besides its headers. Empty, None and 0 are "not there (yet)".

    Times: `started` and `now` in seconds of the epoch, `elapsed` and `first_byte` in seconds since the start.
    `attempted` are the endpoints tried, `(address, hostname)`, the last one being the one that answered.
    """

    route: str = ""
    route_metadata: Metadata = EMPTY_METADATA
    virtual_host_metadata: Metadata = EMPTY_METADATA
    cluster: str = ""
    cluster_metadata: Metadata = EMPTY_METADATA
    attempted: Sequence[tuple[str, str]] = ()
    endpoint_metadata: Metadata = EMPTY_METADATA
    attempts: int = 0
    status: int = 0
    grpc_status: int | None = None
    details: str = ""
    flag: str = ""
    body: str = ""
    started: float = 0.0
    now: float = 0.0
    elapsed: float = 0.0
    first_byte: float | None = None


NOTHING = CallFacts()


class Scene:
    """The request and the response as they stand, and the facts, each made when something asks for it."""

    __slots__ = ("_facts", "_head", "_headers", "_make", "_request", "_response", "_view")

    def __init__(
        self, head: RequestHead, request: RawHeaders, response: RawHeaders, facts: Callable[[], CallFacts] | None = None
    ) -> None:
        self._head = head
        self._request = request
        self._response = response
        self._make = facts
        self._facts: CallFacts | None = None
        self._view: RequestHead | None = None
        self._headers: RequestHead | None = None

    @property
    def head(self) -> RequestHead:
        """The request with the headers it has by now."""
        view, head = self._view, self._head
        if view is None:
            view = RequestHead(head.method, head.scheme, head.authority, head.path, self._request)
            self._view = view
        return view

    @property
    def protocol(self) -> str:
        """The request's protocol, `HTTP/1.1` or `HTTP/2`."""
        return self._head.protocol

    def request(self, name: str) -> str | None:
        """The first value of a request header (lower-case name), None when missing."""
        return next(iter(self.head.get_all(name)), None)

    def response(self, name: str) -> str | None:
        """The first value of a response header."""
        headers = self._headers
        if headers is None:
            headers = self._headers = RequestHead("", "", "", "", self._response)
        return next(iter(headers.get_all(name)), None)

    @property
    def facts(self) -> CallFacts:
        """What else is known."""
        facts = self._facts
        if facts is None:
            facts = self._facts = NOTHING if self._make is None else self._make()
        return facts
