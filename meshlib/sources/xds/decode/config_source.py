"""ConfigSource: where a resource is to be fetched. Here everything comes from the one ADS stream, or the same files."""

from __future__ import annotations

from typing import Any

from meshlib.sources.xds.decode.context import Context, join

_SAME_PLACE = frozenset({"ads", "self", None})


def check_config_source(ctx: Context, message: Any, path: str) -> None:
    """Report a source that is not the one the resource itself came from."""
    kind = message.WhichOneof("config_source_specifier")
    if kind not in _SAME_PLACE:
        ctx.degraded(join(path, kind), "not used; the resource is taken from where this one came from", "use ads")
