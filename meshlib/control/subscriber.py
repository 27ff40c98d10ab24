"""The server's side of one ADS stream, sans-I/O: requests, new versions and time in, responses out."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshlib.control.push_order import Step, steps
from meshlib.control.resource_store import Resource, StoreVersion, View
from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    WILDCARD,
    DeltaRequest,
    DeltaResponse,
    SotwRequest,
    SotwResponse,
    in_push_order,
)

RequestT = TypeVar("RequestT", bound=SotwRequest | DeltaRequest)
ResponseT = TypeVar("ResponseT", bound=SotwResponse | DeltaResponse)

MAX_TYPES = 64
"""Types one stream may subscribe to. There are about a dozen; each made-up one would be kept as long as the stream."""
_PATIENCE = 1.0  # seconds a step waits for the subscriber to take the step before it


class TooManyTypesError(ValueError):
    """A subscriber asked for more than `MAX_TYPES` types on one stream."""


@dataclass(slots=True)
class TypeSubscription:
    """What a subscriber asked for of one type, and what it was told."""

    names: set[str] = field(default_factory=set)
    is_wildcard: bool = False
    has_named: bool = False  # some request named something: naming nothing no longer means all
    told: dict[str, str] = field(default_factory=dict)  # name -> version it has
    told_missing: set[str] = field(default_factory=set)
    must_respond: bool = True  # even if there is nothing to say
    nonce: str = ""
    sent_version: str = ""
    unanswered: bool = False
    acked_version: str = ""
    last_nack: str | None = None
    nacks: int = 0

    def wanted(self, view: View) -> dict[str, Resource]:
        """The resources of the view that are subscribed to."""
        if self.is_wildcard:
            return {name: r for name, r in view.items() if r.in_wildcard or name in self.names}
        return {name: view[name] for name in sorted(self.names) if name in view}

    def answered(self, nonce: str, error: str | None) -> str | None:
        """Take an ACK or NACK; returns the error if it is news."""
        if nonce != self.nonce or not self.unanswered:
            return None
        self.unanswered = False
        if error is None:
            self.acked_version, self.last_nack = self.sent_version, None
            return None
        self.nacks += 1
        is_news = error != self.last_nack
        self.last_nack = error
        return error if is_news else None


class Subscriber(ABC, Generic[RequestT, ResponseT]):
    """One stream. Call ``responses`` after every other call, and at ``deadline``.

    New versions are shown step by step, make before break; a step waits until the ones before it are ACKed or NACKed,
    but not longer than a second, because a subscriber owes us nothing.
    """

    def __init__(self, version: StoreVersion) -> None:
        self._shown: dict[str, View] = dict(version.types)
        self._version = version
        self._steps: deque[Step] = deque()
        self._expected_endpoints: set[str] = set()
        self._patience_ends: float | None = None
        self._nonces = itertools.count(1)
        self.types: dict[str, TypeSubscription] = {}

    @abstractmethod
    def request(self, request: RequestT) -> str | None:
        """Take a request; returns the text of a NACK that was not said before. Raises TooManyTypesError."""

    @abstractmethod
    def _response(self, type_url: str, subscription: TypeSubscription, view: View) -> ResponseT | None:
        """What the subscriber does not have yet, or None."""

    def publish(self, version: StoreVersion) -> None:
        """A new version is in force."""
        if version.number == self._version.number:
            return
        self._version = version
        old_endpoints = set(self._shown.get(CLUSTER_LOAD_ASSIGNMENT, {}))
        self._steps = deque(steps(self._shown, version))
        self._expected_endpoints = set(version.view(CLUSTER_LOAD_ASSIGNMENT)) - old_endpoints
        self._patience_ends = None

    def responses(self, now: float) -> list[ResponseT]:
        """What to send now."""
        sent = self._flush()
        while self._steps and not self._must_wait(now):
            step = self._steps.popleft()
            self._shown[step.type_url] = step.view
            self._patience_ends = now + _PATIENCE
            sent += self._flush()
        return sent

    def deadline(self) -> float | None:
        """When patience ends, while there are steps left."""
        return self._patience_ends if self._steps else None

    def _subscription(self, type_url: str) -> TypeSubscription:
        """What is known of a type, begun if it is new."""
        if type_url not in self.types and len(self.types) >= MAX_TYPES:
            raise TooManyTypesError(f"more than {MAX_TYPES} types on one stream")
        return self.types.setdefault(type_url, TypeSubscription())

    def _flush(self) -> list[ResponseT]:
        made = [
            self._response(type_url, self.types[type_url], self._shown.get(type_url, {}))
            for type_url in in_push_order(set(self.types))
        ]
        return [response for response in made if response is not None]

    def _must_wait(self, now: float) -> bool:
        if self._patience_ends is not None and now >= self._patience_ends:
            return False
        return any(state.unanswered for state in self.types.values()) or self._awaits_endpoints()

    def _awaits_endpoints(self) -> bool:
        """A proxy that takes all clusters asks for the endpoints of a new one next; routes wait for that."""
        clusters = self.types.get(CLUSTER)
        endpoints = self.types.get(CLUSTER_LOAD_ASSIGNMENT)
        if clusters is None or not clusters.is_wildcard or endpoints is None or endpoints.is_wildcard:
            return False
        is_shown = self._patience_ends is not None and all(step.type_url != CLUSTER for step in self._growing())
        return is_shown and not self._expected_endpoints <= endpoints.names

    def _growing(self) -> list[Step]:
        """The steps left before listeners and routes move over; none once they are the next."""
        return list(itertools.takewhile(lambda step: step.type_url in {CLUSTER, CLUSTER_LOAD_ASSIGNMENT}, self._steps))

    def _next_nonce(self, subscription: TypeSubscription, version: str) -> str:
        subscription.nonce = str(next(self._nonces))
        subscription.sent_version = version
        subscription.unanswered, subscription.must_respond = True, False
        return subscription.nonce


def set_names(subscription: TypeSubscription, names: set[str]) -> None:
    """Subscribe to exactly these names, ``*`` meaning all, and forget what was told of the others."""
    subscription.is_wildcard = WILDCARD in names
    subscription.names = names - {WILDCARD}
    if not subscription.is_wildcard:
        subscription.told = {name: version for name, version in subscription.told.items() if name in names}
    subscription.told_missing &= subscription.names


def versions(resources: Mapping[str, Resource]) -> dict[str, str]:
    """Name to version."""
    return {name: resource.version for name, resource in resources.items()}
