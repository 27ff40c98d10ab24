"""One of the ordered control-plane servers as the session sees it: its stream's life and its protocol. Sans-I/O."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from meshlib.sources.xds.backoff import StreamBackoff
from meshlib.sources.xds.events import Event, StreamConnected, StreamEnded
from meshlib.sources.xds.protocol import AdsProtocol
from meshlib.sources.xds.types import Request, Response

UNIMPLEMENTED = "UNIMPLEMENTED"
"""The status of a server that does not speak the variant of the protocol that was tried."""

_QUIET_IS_HEALTHY = 30.0  # seconds a connected stream may be silent and still not count as a failure when it ends


class LinkState(enum.Enum):
    """Where a link stands."""

    IDLE = "idle"  # not needed
    WAITING = "waiting"  # for the time of the next stream
    OPEN = "open"  # a stream was asked for


class Link:
    """Opens streams to one server, one at a time, as long as it is wanted.

    ``make_protocol(delta)`` builds the protocol; it is called once, and once more if ``may_fall_back`` lets a server
    that answers UNIMPLEMENTED to delta be asked for state of the world instead.
    """

    def __init__(
        self,
        server: str,
        index: int,
        make_protocol: Callable[[bool], AdsProtocol[Any, Any]],
        backoff: StreamBackoff,
        *,
        delta: bool,
        may_fall_back: bool,
    ) -> None:
        self.server = server
        self.index = index
        self.delta = delta
        self.state = LinkState.IDLE
        self.is_connected = False  # a request of the current stream is on the wire
        self.has_answered = False  # the current stream brought a response
        self.is_unreachable = False  # the last stream ended without one
        self.last_error: str | None = None
        self.streams_opened = 0
        self.protocol = make_protocol(delta)
        self._make_protocol = make_protocol
        self._backoff = backoff
        self._may_fall_back = may_fall_back
        self._opened_at = 0.0
        self._retry_at = 0.0

    def want(self, now: float) -> bool:
        """Keep this link up; true when a stream must be opened now."""
        if self.state is LinkState.IDLE:
            self.state, self._retry_at = LinkState.WAITING, now
        if self.state is LinkState.OPEN or now < self._retry_at:
            return False
        self.state, self._opened_at = LinkState.OPEN, now
        self.is_connected = self.has_answered = False
        self.streams_opened += 1
        self.protocol.stream_opened()
        return True

    def drop(self) -> bool:
        """The link is no longer needed; true when there is a stream to close."""
        was_open = self.state is LinkState.OPEN
        self.state = LinkState.IDLE
        self.is_connected = self.has_answered = self.is_unreachable = False
        self.protocol.stream_ended()
        return was_open

    def requests(self) -> list[Request]:
        """What to send on the open stream."""
        return self.protocol.requests() if self.state is LinkState.OPEN else []

    def sent(self, request: Request, now: float) -> None:
        """A request is on the wire."""
        self.is_connected = True
        self.protocol.sent(request, now)

    def received(self, response: Response) -> list[Event]:
        """A response came."""
        events: list[Event] = []
        if not self.has_answered:
            events.append(StreamConnected(self.server, self.index > 0))
        self.is_connected = self.has_answered = True
        self.is_unreachable = False
        self.last_error = None
        return events + self.protocol.received(response)

    def ended(self, code: str, reason: str, now: float, *, is_fault: bool = False) -> list[Event]:
        """The stream ended. ``is_fault``: it broke the protocol, so that its earlier answers do not excuse it."""
        failed = is_fault or not (self.has_answered or self._was_quietly_healthy(now))
        self.protocol.stream_ended()
        self.state, self.is_connected, self.has_answered = LinkState.WAITING, False, False
        if code == UNIMPLEMENTED and self.delta and self._may_fall_back:
            self.delta, self.protocol = False, self._make_protocol(False)
            self._retry_at = now
            return [StreamEnded(self.server, "no delta xDS here, asking for state of the world", False, 0.0)]
        self.is_unreachable = failed
        self._retry_at = self._backoff.failed(now) if failed else self._backoff.ended(self._opened_at, now)
        if failed:
            self.last_error = f"{code}: {reason}"
        return [StreamEnded(self.server, f"{code}: {reason}", failed, self._retry_at - now)]

    def _was_quietly_healthy(self, now: float) -> bool:
        """A stream that resumed with everything up to date may never have had anything to hear."""
        return self.is_connected and now - self._opened_at >= _QUIET_IS_HEALTHY

    def tick(self, now: float) -> list[Event]:
        """Timers of the protocol."""
        return self.protocol.tick(now) if self.state is LinkState.OPEN else []

    def deadline(self) -> float | None:
        """When ``want`` or ``tick`` next has something to do."""
        if self.state is LinkState.WAITING:
            return self._retry_at
        return self.protocol.deadline() if self.state is LinkState.OPEN else None
