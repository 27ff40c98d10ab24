"""What a limit tells requests apart by."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from functools import partial

from meshlib.model.request import RequestHead
from meshlib.routing.descriptors import decoded_parameter, remote_address

_LONGEST_TOKEN = 8192
Key = Callable[[RequestHead], str | None]


def compile_key(text: str) -> Key | None:
    """A function from request to value, None of one that has none; None where all requests are one
    (`meshlib.model.limiters.RequestLimit`).
    """
    kind, _, name = text.partition(":")
    match kind:
        case "header":
            header = name.lower()
            return lambda head: head.get(header)
        case "query_parameter":
            return lambda head: decoded_parameter(head.query, name)
        case "path_segment":
            return partial(_segment, int(name))
        case "claim":
            return lambda head: _claim(head, name)
        case "remote_address":
            return remote_address
    return None


def _segment(index: int, head: RequestHead) -> str | None:
    segments = head.path_only.split("/", index + 2)[1:]
    return (segments[index] or None) if index < len(segments) else None


def _claim(head: RequestHead, name: str) -> str | None:
    """A claim of the bearer token, whoever may have signed it."""
    scheme, _, token = (head.get("authorization") or "").partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3 or len(token) > _LONGEST_TOKEN:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    value = claims.get(name) if isinstance(claims, dict) else None
    return None if value is None or isinstance(value, dict | list) else str(value)
