"""Channels of grpc and grpc.aio: those a program makes are the mesh's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import FrameType, ModuleType
from typing import Any

from meshlib.zero_code.process import process_mesh

_OURS = ("meshlib.", "grpc.")  # the mesh's own stream and sub-channels, and what grpc makes for itself
# Those that stand between a call and us because they have patched the same functions: who called them is asked for.
_BETWEEN = ("opentelemetry.instrumentation.", "wrapt", "ddtrace.", "sentry_sdk.", "newrelic.", "elasticapm.")


def mesh_channels(module: ModuleType) -> None:
    """Patch `grpc`, which imports `grpc.aio` by itself."""
    aio: Any = module.aio
    for where, kind in ((module, "channel"), (aio, "aio_channel")):
        _replace(where, "insecure_channel", kind, secure=False)
        _replace(where, "secure_channel", kind, secure=True)


def _replace(where: Any, name: str, kind: str, *, secure: bool) -> None:
    own: Callable[..., Any] = getattr(where, name)

    @wraps(own)
    def channel(target: str, *args: Any, **options: Any) -> Any:
        if _caller(sys._getframe(1)).startswith(_OURS):
            return own(target, *args, **options)
        given = dict(zip(("credentials", *_NAMES) if secure else _NAMES, args, strict=False)) | options
        make = getattr(process_mesh().grpc, kind)
        return make(target, **{key: value for key, value in given.items() if value is not None})

    setattr(where, name, channel)


def _caller(frame: FrameType | None) -> str:
    """The module that wants a channel."""
    while frame is not None:
        name: str = frame.f_globals.get("__name__") or ""
        if not name.startswith(_BETWEEN):
            return name
        frame = frame.f_back
    return ""


_NAMES = ("options", "compression", "interceptors")
