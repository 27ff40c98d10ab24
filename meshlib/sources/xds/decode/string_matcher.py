"""`envoy.type.matcher.v3.StringMatcher`, and `xds.type.matcher.v3.StringMatcher`, which says the same."""

from __future__ import annotations

from typing import Any

from meshlib.model.strings import StringMatcher
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.regex import regex

_KINDS = frozenset({"exact", "prefix", "suffix", "contains"})


def string_matcher(ctx: Context, message: Any, path: str) -> StringMatcher:
    """Either message. Raises `UnsupportedError` for a custom matcher."""
    kind: Any = message.WhichOneof("match_pattern")
    if kind in _KINDS:
        return StringMatcher(kind, getattr(message, kind), message.ignore_case)
    if kind == "safe_regex":
        return StringMatcher("safe_regex", regex(ctx, message.safe_regex, join(path, "safe_regex")))
    raise UnsupportedError(join(path, kind), "custom string matchers are not supported")
