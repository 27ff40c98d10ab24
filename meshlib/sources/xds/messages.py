"""Between the values of ``types`` and protobuf bytes. Needs the ``xds`` extra; imported by the transport only."""

from __future__ import annotations

from importlib import metadata
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from meshlib.sources.xds.node import Node
from meshlib.sources.xds.types import (
    DeltaRequest,
    DeltaResponse,
    NamedError,
    Request,
    SotwRequest,
    SotwResponse,
    WireResource,
)

USER_AGENT: Final = "meshlib"
CLIENT_FEATURES: Final = ("xds.config.resource-in-sotw",)
_WRAPPER: Final = "type.googleapis.com/envoy.service.discovery.v3.Resource"
_INVALID_ARGUMENT: Final = 3


class MalformedResponseError(ValueError):
    """The bytes are no response of the protocol; without a nonce there is nothing to NACK."""


def node_message(node: Node) -> Any:
    """``envoy.config.core.v3.Node`` of a node, with what meshlib is and can."""
    message = base_pb2.Node(
        id=node.id,
        cluster=node.cluster,
        user_agent_name=USER_AGENT,
        user_agent_version=_version(),
        client_features=CLIENT_FEATURES,
    )
    message.metadata.update(dict(node.metadata))
    locality = node.locality
    message.locality.MergeFrom(
        base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone)
    )
    return message


def _version() -> str:
    try:
        return metadata.version("meshlib")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def request_bytes(request: Request, node: Any) -> bytes:
    """Serialize a request; ``node`` goes into the first of a stream."""
    message: Any = _sotw_request(request) if isinstance(request, SotwRequest) else _delta_request(request)
    if request.first:
        message.node.CopyFrom(node)
    if request.error_detail is not None:
        message.error_detail.code = _INVALID_ARGUMENT
        message.error_detail.message = request.error_detail
    return bytes(message.SerializeToString())


def _sotw_request(request: SotwRequest) -> Any:
    return discovery_pb2.DiscoveryRequest(
        type_url=request.type_url,
        resource_names=request.resource_names,
        version_info=request.version_info,
        response_nonce=request.response_nonce,
    )


def _delta_request(request: DeltaRequest) -> Any:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=request.type_url,
        resource_names_subscribe=request.subscribe,
        resource_names_unsubscribe=request.unsubscribe,
        initial_resource_versions=dict(request.initial_resource_versions),
        response_nonce=request.response_nonce,
    )


def parse_sotw(data: bytes) -> SotwResponse:
    """Parse a DiscoveryResponse; raises MalformedResponseError."""
    message = _parse(discovery_pb2.DiscoveryResponse(), data)
    return SotwResponse(
        message.type_url,
        message.version_info,
        message.nonce,
        tuple(_sotw_resource(resource) for resource in message.resources),
        _errors(message),
    )


def parse_delta(data: bytes) -> DeltaResponse:
    """Parse a DeltaDiscoveryResponse; raises MalformedResponseError."""
    message = _parse(discovery_pb2.DeltaDiscoveryResponse(), data)
    return DeltaResponse(
        message.type_url,
        message.nonce,
        tuple(_wrapped(resource) for resource in message.resources),
        (*message.removed_resources, *(removed.name for removed in message.removed_resource_names)),
        message.system_version_info,
        _errors(message),
    )


def _parse(message: Any, data: bytes) -> Any:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedResponseError(f"{len(data)} bytes that are no {message.DESCRIPTOR.name}: {error}") from error
    return message


def _sotw_resource(resource: any_pb2.Any) -> WireResource:
    if resource.type_url != _WRAPPER:
        return WireResource(resource.type_url, resource.value)
    wrapper = discovery_pb2.Resource()
    try:
        wrapper.ParseFromString(resource.value)
    except DecodeError:
        # Left as it is, it is refused by name and index like any other resource of a wrong type.
        return WireResource(resource.type_url, resource.value)
    return _wrapped(wrapper)


def _wrapped(wrapper: Any) -> WireResource:
    return WireResource(
        wrapper.resource.type_url,
        wrapper.resource.value,
        wrapper.name or wrapper.resource_name.name,
        wrapper.version,
        tuple(wrapper.aliases),
    )


def _errors(message: Any) -> tuple[NamedError, ...]:
    # xds-protos gained the field in 2024; an older one simply never shows it.
    return tuple(
        NamedError(error.resource_name.name, error.error_detail.code, error.error_detail.message)
        for error in getattr(message, "resource_errors", ())
    )
