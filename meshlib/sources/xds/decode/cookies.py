"""`RouteMatch.cookies`, which Envoy's API has and xds-protos 1.85 has not: read from the fields it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.matchers import CookieMatcher
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import parse
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.string_matcher import string_matcher

_COOKIES = 17  # of RouteMatch
_NAME, _STRING_MATCH, _INVERT_MATCH = 1, 2, 3  # of CookieMatcher


def cookie_matchers(ctx: Context, message: Any, path: str) -> Iterator[CookieMatcher]:
    """The cookies of a RouteMatch. Any other field that is not known raises `UnsupportedError`: without it the route
    would match more than it says.
    """
    if hasattr(message, "cookies"):
        for index, item in enumerate(message.cookies):
            where = f"{join(path, 'cookies')}[{index}]"
            match = string_matcher(ctx, item.string_match, join(where, "string_match"))
            yield CookieMatcher(item.name, match, item.invert_match)
        return
    for index, (number, value) in enumerate(_unknown(message)):
        if number != _COOKIES:
            raise UnsupportedError(path, f"field {number} of RouteMatch is not known to this version")
        yield _cookie(ctx, value, f"{join(path, 'cookies')}[{index}]")


def _cookie(ctx: Context, data: bytes, path: str) -> CookieMatcher:
    from envoy.type.matcher.v3 import string_pb2
    from google.protobuf.empty_pb2 import Empty

    fields = dict(_unknown(parse(Empty, data, path)))
    name, match = fields.get(_NAME), fields.get(_STRING_MATCH)
    if not isinstance(name, bytes) or not name or not isinstance(match, bytes):
        raise ResourceError(path, "name and string_match are required")
    found = parse(string_pb2.StringMatcher, match, join(path, "string_match"))
    return CookieMatcher(
        name.decode("utf-8", "replace"),
        string_matcher(ctx, found, join(path, "string_match")),
        bool(fields.get(_INVERT_MATCH)),
    )


def _unknown(message: Any) -> Iterator[tuple[int, Any]]:
    from google.protobuf.unknown_fields import UnknownFieldSet

    for field in UnknownFieldSet(message):  # type: ignore[attr-defined]  # its stub lacks __iter__
        yield field.field_number, field.data
