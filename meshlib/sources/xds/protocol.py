"""What both variants of the protocol share: one object a server, alive across its streams, sans-I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from meshlib.sources.xds.cache import ResourceCache
from meshlib.sources.xds.does_not_exist import DoesNotExistTimers
from meshlib.sources.xds.events import Event, ProtocolWarning, ResponseProcessed
from meshlib.sources.xds.reception import Receiver, Reception
from meshlib.sources.xds.subscriptions import Subscriptions
from meshlib.sources.xds.types import (
    WILDCARD,
    DeltaRequest,
    DeltaResponse,
    NamedError,
    SotwRequest,
    SotwResponse,
    in_push_order,
)

RequestT = TypeVar("RequestT", bound=SotwRequest | DeltaRequest)
ResponseT = TypeVar("ResponseT", bound=SotwResponse | DeltaResponse)


class AdsProtocol(ABC, Generic[RequestT, ResponseT]):
    """The client's side of ADS on the streams to one server.

    Call ``stream_opened``, then send what ``requests`` returns after every other call and report each as ``sent`` once
    it is on the wire. ``server`` is the server's name in events, ``origin`` its place among the ordered servers.
    """

    def __init__(self, receiver: Receiver, timers: DoesNotExistTimers, *, server: str, origin: int) -> None:
        self._receiver = receiver
        self._timers = timers
        self._server = server
        self._origin = origin
        self._is_first_request = True

    @property
    def _subscriptions(self) -> Subscriptions:
        return self._receiver.subscriptions

    @property
    def _cache(self) -> ResourceCache:
        return self._receiver.cache

    def stream_opened(self) -> None:
        """A new stream: the server knows nothing of what was said on the one before."""
        self._is_first_request = True
        self._forget_stream()

    def stream_ended(self) -> None:
        """The stream is gone; timers wait for the next one."""
        self._timers.stop_all()

    def tick(self, now: float) -> list[Event]:
        """Events of timers that ran out."""
        return self._timers.tick(now)

    def deadline(self) -> float | None:
        """When ``tick`` is due."""
        return self._timers.deadline()

    def requests(self) -> list[RequestT]:
        """What to send now, at most one message a type and answer, make-before-break."""
        requests: list[RequestT] = []
        for type_url in in_push_order(self._subscriptions.types()):
            requests += self._requests_of(type_url)
        return requests

    def sent(self, request: RequestT, now: float) -> None:
        """The request is on the wire: the control plane's time to answer runs from here."""
        self._timers.start(request.type_url, self._asked_by(request), now)

    def received(self, response: ResponseT) -> list[Event]:
        """Use a response; the ACK or NACK is among the next ``requests``."""
        if not self._has_asked(response.type_url):
            return [
                ProtocolWarning(self._server, f"response for {response.type_url or 'no type'}: nobody asked for it")
            ]
        reception = self._apply(response)
        error = reception.error_detail()
        self._answer(response, error)
        self._settle_wildcard(response.type_url)
        self._timers.settle()
        return [*reception.events, ResponseProcessed(response.type_url, self._version_of(response), error)]

    @abstractmethod
    def forget_versions(self) -> None:
        """Another server has answered since: what this one thinks we hold is not what we hold."""

    def _settle_wildcard(self, type_url: str) -> None:
        if WILDCARD in self._subscriptions.names(type_url):
            self._cache.mark_answered(type_url)

    def _control_plane_errors(self, type_url: str, errors: tuple[NamedError, ...], into: Reception) -> None:
        into.events += self._receiver.fail(type_url, errors)

    def _take_first(self) -> bool:
        first, self._is_first_request = self._is_first_request, False
        return first

    @abstractmethod
    def _forget_stream(self) -> None: ...

    @abstractmethod
    def _requests_of(self, type_url: str) -> list[RequestT]: ...

    @abstractmethod
    def _asked_by(self, request: RequestT) -> frozenset[str]: ...

    @abstractmethod
    def _has_asked(self, type_url: str) -> bool: ...

    @abstractmethod
    def _apply(self, response: ResponseT) -> Reception: ...

    @abstractmethod
    def _answer(self, response: ResponseT, error: str | None) -> None: ...

    @abstractmethod
    def _version_of(self, response: ResponseT) -> str: ...
