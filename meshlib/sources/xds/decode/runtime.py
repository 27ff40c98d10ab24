"""Runtime (`envoy.service.runtime.v3`): a layer of values by key."""

from __future__ import annotations

from typing import Any

from meshlib.model.runtime import RuntimeLayer, flattened
from meshlib.sources.xds.decode.common import struct
from meshlib.sources.xds.decode.context import Context, fields

_RUNTIME = fields("name", "layer")


def runtime(ctx: Context, message: Any) -> RuntimeLayer:
    """A Runtime message; `name` is the layer's."""
    ctx.check_fields(message, "", _RUNTIME)
    return RuntimeLayer(message.name, flattened(struct(message.layer)))
