"""A gRPC service that the mesh itself asks (`envoy.config.core.v3.GrpcService`): a rate limit service, for one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GrpcService", "GrpcTls"]

DataSource = tuple[str, bytes]
"""A file's name, or the bytes themselves; one of them is empty."""
NO_DATA: DataSource = ("", b"")


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """`ssl_credentials`: the authorities to trust (none: the system's), and the client's key and certificates."""

    root_certs: DataSource = NO_DATA
    private_key: DataSource = NO_DATA
    cert_chain: DataSource = NO_DATA


@dataclass(frozen=True, slots=True)
class GrpcService:
    """Where the service is: `cluster` is a cluster of the mesh (`envoy_grpc`), balanced and secured as calls to it are;
    `target` a gRPC target such as `dns:///limits:8081` (`google_grpc`), with `tls` or in plain text. One of them is
    empty.

    `authority` is what a cluster is asked as (by default its own name). `metadata` goes with every call
    (`initial_metadata`).
    """

    cluster: str = ""
    target: str = ""
    authority: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    tls: GrpcTls | None = None
