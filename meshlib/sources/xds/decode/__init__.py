"""xDS resources to the model. Total: any bytes give a model or a `ResourceError`.

Two kinds of finding. What Envoy would refuse is a `ResourceError`: the resource is not used (NACK) and the last good
one stays. What is valid but not in this version is left out and reported as a degraded `Issue` with its path: what a
control plane sends is never refused for being rich, and never ignored in silence.

Needs protobuf and xds-protos (the `xds` or `file` extra); the generated modules a resource needs are imported when the
first one of its type comes (about 80 ms once for the largest, the listener's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.model.report import Issue, ResourceError
from meshlib.sources.xds.decode.cluster import cluster
from meshlib.sources.xds.decode.common import message_class, type_name
from meshlib.sources.xds.decode.context import Context
from meshlib.sources.xds.decode.endpoint import cluster_load_assignment
from meshlib.sources.xds.decode.listener import listener
from meshlib.sources.xds.decode.references import NO_REFERENCES, References, Resource, references
from meshlib.sources.xds.decode.route import route_configuration, virtual_host
from meshlib.sources.xds.decode.runtime import runtime
from meshlib.sources.xds.decode.scoped_routes import scoped_route_configuration
from meshlib.sources.xds.decode.validate import validate
from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    RUNTIME,
    SCOPED_ROUTE_CONFIGURATION,
    VIRTUAL_HOST,
    short_type,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["Decoded", "References", "Resource", "decode", "decode_message", "references"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A resource, with what was left out of it and what it points at."""

    name: str
    resource: Resource
    issues: tuple[Issue, ...] = ()
    references: References = NO_REFERENCES


@dataclass(frozen=True, slots=True)
class _Type:
    module: str
    name_field: str
    decode: Callable[[Context, Any], Resource]
    is_validated_inside: bool = False


_TYPES = {
    type_name(LISTENER): _Type("envoy.config.listener.v3.listener_pb2", "name", listener),
    type_name(ROUTE_CONFIGURATION): _Type("envoy.config.route.v3.route_pb2", "name", route_configuration),
    type_name(SCOPED_ROUTE_CONFIGURATION): _Type(
        "envoy.config.route.v3.scoped_route_pb2", "name", scoped_route_configuration
    ),
    type_name(VIRTUAL_HOST): _Type("envoy.config.route.v3.route_components_pb2", "name", virtual_host),
    type_name(RUNTIME): _Type("envoy.service.runtime.v3.rtds_pb2", "name", runtime),
    type_name(CLUSTER): _Type("envoy.config.cluster.v3.cluster_pb2", "name", cluster),
    type_name(CLUSTER_LOAD_ASSIGNMENT): _Type(
        "envoy.config.endpoint.v3.endpoint_pb2", "cluster_name", cluster_load_assignment, is_validated_inside=True
    ),
}


def _type_of(name: str) -> _Type:
    found = _TYPES.get(name)
    if found is None:
        known = ", ".join(sorted(short_type(known) for known in _TYPES))
        raise ResourceError("", f"{name[:200]!r} is no type that is decoded here; known are {known}", short_type(name))
    return found


def decode(type_url: str, data: bytes) -> Decoded:
    """Decode the bytes of an `Any` of that type. Raises only `ResourceError`, with resource, path and reason."""
    name = type_name(type_url)
    found = _type_of(name)
    from google.protobuf.message import DecodeError

    try:
        message = message_class(name, found.module).FromString(data)
    except DecodeError as error:
        raise ResourceError("", f"is no valid {name}: {error}", short_type(name)) from None
    return decode_message(message)


def decode_message(message: Message) -> Decoded:
    """Decode a message of one of these types, as `decode`."""
    type_full_name = message.DESCRIPTOR.full_name
    found = _type_of(type_full_name)
    name = str(getattr(message, found.name_field))
    resource_name = f"{short_type(type_full_name)} {name}".strip()
    ctx = Context(resource_name)
    try:
        if not found.is_validated_inside:
            validate(message)
        resource = found.decode(ctx, message)
    except ResourceError as error:
        raise ResourceError(error.path, error.reason, resource_name) from None
    except RecursionError:
        raise ResourceError("", "is nested too deeply", resource_name) from None
    return Decoded(name, resource, tuple(ctx.issues), references(resource))
