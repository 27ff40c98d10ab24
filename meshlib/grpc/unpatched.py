"""grpcio's own channel makers, whoever has patched `grpc`: sub-channels are the mesh's, and a call on one is an attempt
that the mesh tells of itself. OpenTelemetry's instrumentation would make another span of each.
"""

from __future__ import annotations

from typing import Any

import grpc
from grpc.aio import _channel as _aio


def channel(target: str, options: Any, credentials: Any) -> Any:
    """A blocking channel; without credentials in plain text."""
    if credentials is None:
        return _own(grpc.insecure_channel)(target, options=options)
    return _own(grpc.secure_channel)(target, credentials, options=options)


def aio_channel(target: str, options: Any, credentials: Any) -> Any:
    """A channel of grpc.aio; without credentials in plain text."""
    if credentials is None:
        return _aio.insecure_channel(target, options=options)
    return _aio.secure_channel(target, credentials, options=options)


def _own(make: Any) -> Any:
    """The function below its patches, which name what they wrap."""
    while (inner := getattr(make, "__wrapped__", None)) is not None:
        make = inner
    return make
