"""`RouteMatch.cookies`, which Envoy's API has and xds-protos 1.85 has not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.matchers import CookieMatcher
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.string_matcher import string_matcher
from meshlib.sources.xds.decode.unknown import unknown_fields


def cookie_matchers(ctx: Context, message: Any, path: str) -> Iterator[CookieMatcher]:
    """The cookies of a RouteMatch. Any other field that is not known raises `UnsupportedError`: without it the route
    would match more than it says.
    """
    if any(unknown_fields(message)):
        from meshlib.sources.xds.decode.added_fields import with_added

        message = with_added(message)
        for number in unknown_fields(message):
            raise UnsupportedError(path, f"field {number} of RouteMatch is not known to this version")
    for index, item in enumerate(getattr(message, "cookies", ())):
        yield _cookie(ctx, item, f"{join(path, 'cookies')}[{index}]")


def _cookie(ctx: Context, item: Any, path: str) -> CookieMatcher:
    if not item.name or not item.HasField("string_match"):
        raise ResourceError(path, "name and string_match are required")
    return CookieMatcher(
        item.name, string_matcher(ctx, item.string_match, join(path, "string_match")), item.invert_match
    )
