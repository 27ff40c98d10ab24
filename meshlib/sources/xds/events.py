"""What the xDS client tells its owner, always on the source thread and in the order it happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceUpdate:
    """A resource came, differs from the last good one and was accepted."""

    type_url: str
    name: str
    version: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ResourceAliased:
    """A resource that was asked for by the name ``alias`` has come, and is known by its own name."""

    type_url: str
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class ResourceRejected:
    """A resource was refused (and NACKed) for ``reason``; ``has_last_good`` says whether an older one stays in use."""

    type_url: str
    name: str
    version: str
    reason: str
    has_last_good: bool


@dataclass(frozen=True, slots=True)
class ResourceRemoved:
    """The control plane took away a resource it had sent."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class ResourceDoesNotExist:
    """A resource that was asked for does not exist: said so by the control plane, or not sent in time.

    ``name`` is ``*`` when a wildcard subscription got no answer at all: "there may be none, stop waiting".
    """

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class ResourceFailed:
    """The control plane reported an error of its own for a resource (xRFC TP3); what was known stays in use."""

    type_url: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResponseProcessed:
    """The end of one response: a good moment to compile. ``error`` is the text of the NACK, or None for an ACK."""

    type_url: str
    version: str
    error: str | None


@dataclass(frozen=True, slots=True)
class StreamConnected:
    """A stream answered for the first time; ``fallback`` is true when it is not the first of the ordered servers."""

    server: str
    fallback: bool


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """A stream ended. ``is_failure`` is false for an end after a response, which is normal (gRFC A57)."""

    server: str
    reason: str
    is_failure: bool
    retry_in: float


@dataclass(frozen=True, slots=True)
class ProtocolWarning:
    """The control plane said something that is tolerated and not used, such as a type nobody asked for."""

    server: str
    message: str


Event = (
    ResourceUpdate
    | ResourceAliased
    | ResourceRejected
    | ResourceRemoved
    | ResourceDoesNotExist
    | ResourceFailed
    | ResponseProcessed
    | StreamConnected
    | StreamEnded
    | ProtocolWarning
)
