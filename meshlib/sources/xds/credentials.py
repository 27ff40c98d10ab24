"""Channel and call credentials of a control-plane connection, read anew for each stream.

Files are read when a stream opens, so a rotated certificate or token is used from the next stream on without a timer:
a control plane checks both only then.
"""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import grpc

from meshlib.sources.xds.bootstrap import Credentials, XdsServer

_EARLY = 30.0  # seconds before ``exp`` from which a token counts as expired (gRFC A97)


class CredentialsError(Exception):
    """Credentials cannot be used now; the stream fails and is retried with back-off."""


def open_channel(server: XdsServer, options: list[tuple[str, int | str]]) -> grpc.Channel:
    """A channel to the server with the credentials the bootstrap names. It is grpcio's own, whoever has patched `grpc`:
    below `meshlib run` and an instrumentation it would else be a channel of the mesh that waits for it.
    """
    if server.channel_creds.type == "insecure":
        made: grpc.Channel = inspect.unwrap(grpc.insecure_channel)(server.server_uri, options)
        return made
    config = server.channel_creds
    credentials = grpc.ssl_channel_credentials(
        _read(config, "ca_certificate_file"), _read(config, "private_key_file"), _read(config, "certificate_file")
    )
    secure: grpc.Channel = inspect.unwrap(grpc.secure_channel)(server.server_uri, credentials, options)
    return secure


def call_metadata(server: XdsServer, wall_clock: Callable[[], float]) -> list[tuple[str, str]]:
    """The metadata of the call credentials. A token never goes over a connection that is not encrypted."""
    if server.channel_creds.type == "insecure":
        return []
    return [("authorization", f"Bearer {_token(creds, wall_clock())}") for creds in server.call_creds]


def _read(creds: Credentials, key: str) -> bytes | None:
    path = creds.text(key)
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{creds.type}.{key} {path}: {error.strerror or error}") from error


def _token(creds: Credentials, now: float) -> str:
    path = creds.text("jwt_token_file")
    token = (_read(creds, "jwt_token_file") or b"").decode("ascii", "replace").strip()
    if not token:
        raise CredentialsError(f"jwt_token_file {path or '(not set)'}: holds no token")
    expiry = token_expiry(token)
    if expiry is not None and expiry - _EARLY <= now:
        raise CredentialsError(f"jwt_token_file {path}: the token expired, or does so in less than {_EARLY:.0f} s")
    return token


def token_expiry(token: str) -> float | None:
    """The ``exp`` of a JWT, in Unix seconds; None when it has none that can be read."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None
