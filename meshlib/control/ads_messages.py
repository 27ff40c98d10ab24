"""Between the values of ``sources.xds.types`` and protobuf bytes, on the server's side."""

from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from meshlib.sources.xds.types import DeltaRequest, DeltaResponse, SotwRequest, SotwResponse, WireResource

CONTROL_PLANE = "meshlib"
LONGEST_ERROR = 2_000
"""Characters of a NACK's reason that are kept and logged: a subscriber may send megabytes."""


def sotw_request(message: Any) -> SotwRequest:
    """Read a DiscoveryRequest."""
    return SotwRequest(
        message.type_url,
        tuple(message.resource_names),
        message.version_info,
        message.response_nonce,
        _error(message),
        message.HasField("node"),
    )


def delta_request(message: Any) -> DeltaRequest:
    """Read a DeltaDiscoveryRequest."""
    return DeltaRequest(
        message.type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        tuple(sorted(message.initial_resource_versions.items())),
        message.response_nonce,
        _error(message),
        message.HasField("node"),
    )


def _error(message: Any) -> str | None:
    if not message.HasField("error_detail"):
        return None
    return message.error_detail.message[:LONGEST_ERROR] or f"status {message.error_detail.code}"


def sotw_response(response: SotwResponse) -> Any:
    """Write a DiscoveryResponse. Resources go without a wrapper, which clients must announce before they get one."""
    message = discovery_pb2.DiscoveryResponse(
        type_url=response.type_url, version_info=response.version_info, nonce=response.nonce
    )
    message.control_plane.identifier = CONTROL_PLANE
    for resource in response.resources:
        message.resources.add(type_url=resource.type_url, value=resource.body)
    return message


def delta_response(response: DeltaResponse) -> Any:
    """Write a DeltaDiscoveryResponse."""
    message = discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url,
        nonce=response.nonce,
        system_version_info=response.system_version_info,
        removed_resources=response.removed,
    )
    message.control_plane.identifier = CONTROL_PLANE
    for resource in response.resources:
        _add(message, resource)
    return message


def _add(message: Any, resource: WireResource) -> None:
    wrapper = message.resources.add(name=resource.name, version=resource.version)
    wrapper.resource.type_url, wrapper.resource.value = resource.type_url, resource.body
