"""The xDS client without its I/O: subscriptions, cache, and one link a server with fallback between them (gRFC A71).

Feed it what happened (``subscribe``, ``request_sent``, ``received``, ``stream_ended``, time) and carry out what
``poll`` returns. It holds no clock, thread or socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meshlib.model.backoff import BackoffPolicy, Rng
from meshlib.sources.xds.backoff import StreamBackoff
from meshlib.sources.xds.cache import ResourceCache
from meshlib.sources.xds.does_not_exist import DoesNotExistTimers
from meshlib.sources.xds.events import Event
from meshlib.sources.xds.link import Link, LinkState
from meshlib.sources.xds.protocol import AdsProtocol
from meshlib.sources.xds.protocol_delta import DeltaProtocol
from meshlib.sources.xds.protocol_sotw import SotwProtocol
from meshlib.sources.xds.reception import Accept, Receiver
from meshlib.sources.xds.stats import SessionStats, StatsRecorder
from meshlib.sources.xds.subscriptions import Subscriptions
from meshlib.sources.xds.types import Request, Response

Delta = bool | Literal["auto"]
"""Which variant to speak; ``auto`` tries delta and takes state of the world from a server that has no delta."""


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a stream to the server of this index."""

    link: int
    delta: bool


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the stream to the server of this index."""

    link: int


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send on the stream to the server of this index, and report it sent when it is on the wire."""

    link: int
    request: Request


Action = OpenStream | CloseStream | SendRequest


class AdsSession:
    """One client of an ordered list of servers.

    ``servers`` are names for people; everything else refers to a server by its index. ``does_not_exist_after`` is in
    seconds (gRFC A57: 15).
    """

    def __init__(
        self,
        servers: Sequence[str],
        accept: Accept,
        rng: Rng,
        *,
        delta: Delta = "auto",
        backoff: BackoffPolicy | None = None,
        does_not_exist_after: float = 15.0,
    ) -> None:
        if not servers:
            raise ValueError("an xDS client needs at least one server")
        self._subscriptions = Subscriptions()
        self._cache = ResourceCache()
        self._receiver = Receiver(self._subscriptions, self._cache, accept)
        self._after = does_not_exist_after
        self._active = 0
        self._source = 0  # the link whose answers the cache holds
        self._recorder = StatsRecorder()
        policy = backoff or BackoffPolicy()
        self._links = [
            self._make_link(server, index, StreamBackoff(policy, rng), delta) for index, server in enumerate(servers)
        ]

    def _make_link(self, server: str, index: int, backoff: StreamBackoff, delta: Delta) -> Link:
        def make_protocol(is_delta: bool) -> AdsProtocol[Any, Any]:
            timers = DoesNotExistTimers(self._subscriptions, self._cache, self._after)
            variant = DeltaProtocol if is_delta else SotwProtocol
            return variant(self._receiver, timers, server=server, origin=index)

        return Link(server, index, make_protocol, backoff, delta=delta is not False, may_fall_back=delta == "auto")

    def subscribe(self, type_url: str, name: str) -> None:
        """Ask for a resource, or for all of a type by the name ``*``."""
        self._subscriptions.add(type_url, name)

    def unsubscribe(self, type_url: str, name: str) -> None:
        """Ask no more, and forget what nobody else asks for."""
        if self._subscriptions.discard(type_url, name):
            self._cache.keep_only(self._subscriptions, type_url)
            entry = self._cache.get(type_url, name)
            if entry is not None and entry.body is None:  # covered by a wildcard, and yet to be asked for anew
                self._cache.drop(type_url, name)

    def received(self, link: int, response: Response, now: float) -> list[Event]:
        """A response came on the stream to this server."""
        events = self._links[link].received(response)
        self._answers_come_from(link)
        self._recorder.record(events, now)
        return events

    def request_sent(self, link: int, request: Request, now: float) -> None:
        """A request is on the wire."""
        if self._links[link].state is LinkState.OPEN:
            self._links[link].sent(request, now)

    def stream_ended(self, link: int, code: str, reason: str, now: float, *, is_fault: bool = False) -> list[Event]:
        """The stream ended with this gRPC status, or was given up because of a fault in what it sent."""
        events = self._links[link].ended(code, reason, now, is_fault=is_fault)
        self._recorder.record(events, now)
        return events

    def tick(self, now: float) -> list[Event]:
        """Events of timers that ran out."""
        events = [event for link in self._links for event in link.tick(now)]
        self._recorder.record(events, now)
        return events

    def poll(self, now: float) -> list[Action]:
        """What to do now. Call it after every other call."""
        self._fall_back_if_needed()
        actions: list[Action] = [CloseStream(link.index) for link in self._links[self._active + 1 :] if link.drop()]
        if not self._subscriptions and not any(link.state is LinkState.OPEN for link in self._links):
            return actions
        for link in self._links[: self._active + 1]:
            if link.want(now):
                actions.append(OpenStream(link.index, link.delta))
            actions += [SendRequest(link.index, request) for request in link.requests()]
        return actions

    def deadline(self) -> float | None:
        """When ``tick`` and ``poll`` must be called at the latest."""
        if not self._subscriptions:
            return None
        deadlines = [link.deadline() for link in self._links]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def streams_lost(self) -> None:
        """All streams are gone and were not closed by us (a fork): open new ones, keep what is known."""
        for link in self._links:
            link.drop()

    def stats(self) -> SessionStats:
        """What ``xds`` pages and metrics show."""
        return self._recorder.snapshot(self._links, self._source, self._cache, self._subscriptions)

    def _fall_back_if_needed(self) -> None:
        is_last = self._active + 1 == len(self._links)
        if not is_last and self._links[self._active].is_unreachable and self._cache.lacks_any(self._subscriptions):
            self._active += 1

    def _answers_come_from(self, index: int) -> None:
        # A server that is back takes over from all after it; those before it keep being tried.
        self._active = min(self._active, index)
        if self._source == index:
            return
        for link in self._links:
            if link.index != index:
                link.protocol.forget_versions()
        self._source = index
