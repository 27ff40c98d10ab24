"""One subscriber's stream in the ADS server: grpcio on one side, the sans-I/O subscriber on the other."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from meshlib.control.ads_messages import delta_request, delta_response, sotw_request, sotw_response
from meshlib.control.resource_store import ResourceStore
from meshlib.control.subscriber import Subscriber
from meshlib.control.subscriber_delta import DeltaSubscriber
from meshlib.control.subscriber_sotw import SotwSubscriber
from meshlib.sources.xds.types import short_type

_MAX_UNREAD = 16  # requests; beyond that gRPC's flow control holds the subscriber back
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SubscribedType:
    """What one subscriber has of one type."""

    type_url: str
    is_wildcard: bool
    names: tuple[str, ...]
    sent_version: str
    acked_version: str
    last_nack: str | None
    nacks: int


@dataclass(frozen=True, slots=True)
class SubscriberInfo:
    """One subscriber, for people: who, since when (monotonic seconds), what it took and what it refused."""

    id: int
    peer: str
    node_id: str
    user_agent: str
    delta: bool
    connected_at: float
    types: tuple[SubscribedType, ...]


class AdsStream:
    """Serves one stream. ``responses`` runs on grpcio's thread for the stream, a second thread reads the requests."""

    def __init__(self, number: int, peer: str, store: ResourceStore, *, delta: bool, only_type: str | None) -> None:
        self._id = number
        self._peer = peer
        self._store = store
        self._delta = delta
        self._only_type = only_type
        self._node_id = self._user_agent = ""
        self._connected_at = time.monotonic()
        self._inbox: deque[Any] = deque()
        self._changed = threading.Condition()
        self._is_over = False
        self._version_seen = store.current
        variant: type[Subscriber[Any, Any]] = DeltaSubscriber if delta else SotwSubscriber
        self._subscriber: Subscriber[Any, Any] = variant(self._version_seen)
        self._info = self._describe()

    @property
    def info(self) -> SubscriberInfo:
        """The picture after the last step."""
        return self._info

    def wake(self) -> None:
        """There may be a new version."""
        with self._changed:
            self._changed.notify_all()

    def end(self) -> None:
        """End the stream; ``responses`` returns."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def read(self, requests: Iterator[Any]) -> None:
        """Take requests until there are no more or the stream ends; waits while `responses` is behind."""
        try:
            for message in requests:
                if not self._put(message):
                    break
        except grpc.RpcError:
            _log.debug("ADS: the stream of %s broke", self._peer)
        finally:
            self.end()

    def _put(self, message: Any) -> bool:
        """Hand over a request as soon as there is room; False once the stream is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or len(self._inbox) < _MAX_UNREAD)
            if not self._is_over:
                self._inbox.append(message)
                self._changed.notify_all()
            return not self._is_over

    def responses(self) -> Iterator[Any]:
        """The messages to send, until the stream ends. Raises TooManyTypesError."""
        write: Callable[[Any], Any] = delta_response if self._delta else sotw_response
        while (messages := self._next_messages()) is not None:
            for message in messages:
                self._take(message)
            self._publish()
            made = self._subscriber.responses(time.monotonic())
            self._info = self._describe()
            for response in made:
                yield write(response)

    def _next_messages(self) -> list[Any] | None:
        with self._changed:
            self._changed.wait_for(self._has_work, self._wait_time())
            if self._is_over:
                return None
            messages = list(self._inbox)
            self._inbox.clear()
            self._changed.notify_all()
            return messages

    def _has_work(self) -> bool:
        return bool(self._is_over or self._inbox or self._store.current is not self._version_seen)

    def _wait_time(self) -> float | None:
        deadline = self._subscriber.deadline()
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def _publish(self) -> None:
        self._version_seen = self._store.current
        self._subscriber.publish(self._version_seen)

    def _take(self, message: Any) -> None:
        if message.HasField("node"):
            self._node_id, self._user_agent = message.node.id, message.node.user_agent_name
        if self._only_type is not None:
            message.type_url = self._only_type
        nack = self._subscriber.request(delta_request(message) if self._delta else sotw_request(message))
        if nack is not None:
            who = self._node_id or self._peer
            _log.warning("ADS: %s refused %s: %s", who, short_type(message.type_url), nack)

    def _describe(self) -> SubscriberInfo:
        types = tuple(
            SubscribedType(
                type_url,
                state.is_wildcard,
                tuple(sorted(state.names)),
                state.sent_version,
                state.acked_version,
                state.last_nack,
                state.nacks,
            )
            for type_url, state in sorted(self._subscriber.types.items())
        )
        return SubscriberInfo(
            self._id, self._peer, self._node_id, self._user_agent, self._delta, self._connected_at, types
        )
