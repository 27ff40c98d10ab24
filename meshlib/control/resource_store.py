"""What the control plane serves: immutable versions of serialized resources, swapped as a whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from meshlib.model.protobuf_wire import MalformedMessageError, fields
from meshlib.sources.xds.resource_name import resource_name
from meshlib.sources.xds.types import LISTENER

_LISTENER_ADDRESS, _LISTENER_API_LISTENER = 2, 19

View = Mapping[str, "Resource"]
"""The resources of one type by name."""

_EMPTY: View = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Resource:
    """A serialized resource; equal to another when type, name and content hash are."""

    type_url: str
    name: str
    version: str
    body: bytes = field(compare=False, repr=False)
    in_wildcard: bool = field(default=True, compare=False)

    @classmethod
    def of_bytes(cls, type_url: str, body: bytes) -> Resource:
        """Take a serialized resource; its name is read from field 1. Raises ValueError when it has none."""
        name = resource_name(body)
        if name is None:
            raise ValueError(f"a resource of type {type_url} has no name")
        version = hashlib.sha256(body).hexdigest()[:16]
        return cls(type_url, name, version, body, not _is_api_listener(type_url, body))

    @classmethod
    def of_message(cls, message: Any) -> Resource:
        """Take a protobuf message, such as a ``cluster_pb2.Cluster``."""
        type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
        return cls.of_bytes(type_url, message.SerializeToString(deterministic=True))


def _is_api_listener(type_url: str, body: bytes) -> bool:
    """A listener without an address is for proxyless clients, by name; real Envoy refuses it from a wildcard LDS."""
    if type_url != LISTENER:
        return False
    try:
        numbers = {number for number, _, _ in fields(body)}
    except MalformedMessageError:
        return False
    return _LISTENER_API_LISTENER in numbers and _LISTENER_ADDRESS not in numbers


@dataclass(frozen=True, slots=True)
class StoreVersion:
    """All resources at one moment; ``number`` counts versions from 0, the empty store."""

    number: int = 0
    types: Mapping[str, View] = field(default_factory=lambda: MappingProxyType({}))

    def view(self, type_url: str) -> View:
        """The resources of one type."""
        return self.types.get(type_url, _EMPTY)


class ResourceStore:
    """The current version, and whom to tell of the next. Safe from any thread; readers take no lock."""

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._current = StoreVersion()
        self.replace(resources)

    @property
    def current(self) -> StoreVersion:
        """The version in force."""
        return self._current

    def replace(self, resources: Iterable[Resource]) -> StoreVersion:
        """Put all resources in place of those before. Nothing happens if nothing changed.

        Raises ValueError on two resources of one type and name, and then keeps what it had.
        """
        types = _by_type(resources)
        with self._lock:
            if types == self._current.types:
                return self._current
            self._current = StoreVersion(self._current.number + 1, types)
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher()
        return self._current

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each new version, on the thread that made it; returns how to stop."""
        with self._lock:
            self._watchers.append(changed)

        def stop() -> None:
            with self._lock:
                if changed in self._watchers:
                    self._watchers.remove(changed)

        return stop


def _by_type(resources: Iterable[Resource]) -> Mapping[str, View]:
    types: dict[str, dict[str, Resource]] = {}
    for resource in resources:
        view = types.setdefault(resource.type_url, {})
        if resource.name in view:
            raise ValueError(f"two resources of type {resource.type_url} are named {resource.name!r}")
        view[resource.name] = resource
    return MappingProxyType({type_url: MappingProxyType(view) for type_url, view in types.items()})
