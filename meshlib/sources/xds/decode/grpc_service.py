"""`envoy.config.core.v3.GrpcService`: a service that a filter asks."""

from __future__ import annotations

from typing import Any

from meshlib.model.grpc_service import GrpcService, GrpcTls
from meshlib.sources.xds.decode.common import data_source
from meshlib.sources.xds.decode.context import Context, fields, join

_GRPC_SERVICE = fields(
    "envoy_grpc",
    "google_grpc",
    "initial_metadata",
    harmless={"timeout": "the filter has a timeout of its own"},
    instead={"retry_policy": "the service is asked once"},
)
_ENVOY_GRPC = fields(
    "cluster_name",
    "authority",
    harmless={
        "skip_envoy_headers": "no such headers are sent",
        "max_receive_message_length": "answers are as small as grpcio's own limit, 4 MiB",
    },
    instead={"retry_policy": "the service is asked once"},
)
_NO_CREDENTIALS = "the service is asked without these credentials"
_GOOGLE_GRPC = fields(
    "target_uri",
    "channel_credentials",
    harmless={
        "stat_prefix": "a name for statistics only",
        "per_stream_buffer_limit_bytes": "one message goes each way",
    },
    instead={
        "call_credentials": _NO_CREDENTIALS,
        "call_credentials_plugin": _NO_CREDENTIALS,
        "channel_credentials_plugin": _NO_CREDENTIALS,
        "credentials_factory_name": _NO_CREDENTIALS,
        "config": _NO_CREDENTIALS,
        "channel_args": "grpcio's own settings apply",
    },
)
_CHANNEL = fields(
    "ssl_credentials",
    "local_credentials",
    instead={"google_default": "TLS by the system's authorities, without Google's token"},
)
_SSL = fields("root_certs", "private_key", "cert_chain")


def grpc_service(ctx: Context, message: Any, path: str) -> GrpcService:
    """A validated GrpcService message."""
    ctx.check_fields(message, path, _GRPC_SERVICE)
    metadata = tuple((header.key.lower(), header.value) for header in message.initial_metadata)
    if message.HasField("envoy_grpc"):
        found = message.envoy_grpc
        ctx.check_fields(found, join(path, "envoy_grpc"), _ENVOY_GRPC)
        return GrpcService(cluster=found.cluster_name, authority=found.authority, metadata=metadata)
    found, where = message.google_grpc, join(path, "google_grpc")
    ctx.check_fields(found, where, _GOOGLE_GRPC)
    return GrpcService(target=found.target_uri, metadata=metadata, tls=_tls(ctx, found.channel_credentials, where))


def _tls(ctx: Context, message: Any, path: str) -> GrpcTls | None:
    where = join(path, "channel_credentials")
    ctx.check_fields(message, where, _CHANNEL)
    match message.WhichOneof("credential_specifier"):
        case "ssl_credentials":
            ssl, where = message.ssl_credentials, join(where, "ssl_credentials")
            ctx.check_fields(ssl, where, _SSL)
            sources = (data_source(ctx, getattr(ssl, name), join(where, name)) for name in _SSL_NAMES)
            return GrpcTls(*sources)
        case "google_default":
            return GrpcTls()
    return None


_SSL_NAMES = ("root_certs", "private_key", "cert_chain")
