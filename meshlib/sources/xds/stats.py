"""What the xDS client knows about itself: per server, per type, per rejected resource."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meshlib.sources.xds.cache import Rejection, ResourceCache
from meshlib.sources.xds.events import (
    Event,
    ResourceDoesNotExist,
    ResourceRejected,
    ResourceRemoved,
    ResourceUpdate,
    ResponseProcessed,
)
from meshlib.sources.xds.link import Link
from meshlib.sources.xds.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class ServerStats:
    """One server. ``connected``: a stream carries our requests (gRPC's ``grpc.xds_client.connected``)."""

    server: str
    connected: bool
    delta: bool
    last_error: str | None
    streams: int


@dataclass(frozen=True, slots=True)
class TypeStats:
    """One resource type. ``version`` is the last ACKed one; ``last_update`` is a monotonic time, None before any."""

    version: str = ""
    resources: int = 0
    subscribed: int = 0
    updates_valid: int = 0
    updates_invalid: int = 0
    removed: int = 0
    does_not_exist: int = 0
    last_update: float | None = None
    last_nack: str | None = None
    rejected: tuple[tuple[str, Rejection], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionStats:
    """A consistent picture; ``server`` is the one whose answers are in use, ``connected`` whether it is there now."""

    server: str = ""
    connected: bool = False
    last_error: str | None = None
    reconnects: int = 0
    servers: tuple[ServerStats, ...] = ()
    types: dict[str, TypeStats] = field(default_factory=dict)


@dataclass(slots=True)
class _TypeCounts:
    version: str = ""
    valid: int = 0
    invalid: int = 0
    removed: int = 0
    missing: int = 0
    last_update: float | None = None
    last_nack: str | None = None


class StatsRecorder:
    """Counts from the events, so that no decision needs to remember to count."""

    def __init__(self) -> None:
        self._counts: dict[str, _TypeCounts] = {}

    def record(self, events: Iterable[Event], now: float) -> None:
        """Count what happened at ``now``."""
        for event in events:
            type_url = getattr(event, "type_url", None)
            if type_url is not None:
                _count(self._counts.setdefault(type_url, _TypeCounts()), event, now)

    def snapshot(
        self, links: Sequence[Link], source: int, cache: ResourceCache, subscriptions: Subscriptions
    ) -> SessionStats:
        """The picture now."""
        return SessionStats(
            server=links[source].server,
            connected=links[source].is_connected,
            last_error=next((link.last_error for link in links if link.last_error), None),
            reconnects=sum(max(link.streams_opened - 1, 0) for link in links),
            servers=tuple(
                ServerStats(link.server, link.is_connected, link.delta, link.last_error, link.streams_opened)
                for link in links
            ),
            types={
                type_url: self._type_stats(type_url, cache, subscriptions)
                for type_url in sorted(subscriptions.types() | set(self._counts))
            },
        )

    def _type_stats(self, type_url: str, cache: ResourceCache, subscriptions: Subscriptions) -> TypeStats:
        counts = self._counts.get(type_url, _TypeCounts())
        entries = cache.entries(type_url)
        return TypeStats(
            version=counts.version,
            resources=sum(entry.body is not None for entry in entries.values()),
            subscribed=len(subscriptions.names(type_url)),
            updates_valid=counts.valid,
            updates_invalid=counts.invalid,
            removed=counts.removed,
            does_not_exist=counts.missing,
            last_update=counts.last_update,
            last_nack=counts.last_nack,
            rejected=tuple(sorted((name, e.rejection) for name, e in entries.items() if e.rejection is not None)),
        )


def _count(counts: _TypeCounts, event: Event, now: float) -> None:
    match event:
        case ResourceUpdate():
            counts.valid += 1
        case ResourceRejected():
            counts.invalid += 1
        case ResourceRemoved():
            counts.removed += 1
        case ResourceDoesNotExist():
            counts.missing += 1
        case ResponseProcessed(version=version, error=None):
            counts.version, counts.last_update, counts.last_nack = version, now, None
        case ResponseProcessed(error=error):
            counts.last_update, counts.last_nack = now, error
        case _:
            pass
