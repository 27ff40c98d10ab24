"""The key of a shared limit, from the request: a callable, or a text with Envoy's `%REQ(name)%` operators."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from meshlib.model.request import RequestHead

KeyFunction = Callable[[RequestHead], str]

LONGEST_KEY = 128
_OPERATOR = re.compile(r"%([A-Z_]+)(?:\(([^()%]+)\))?%")


def compile_key(key: str | KeyFunction) -> KeyFunction:
    """A function from request to key.

    In a text `%REQ(x-user)%` stands for a header, `%REQ(:path)%`, `%REQ(:method)%` and `%REQ(:authority)%` for the
    pseudo headers; a missing one is `-`, as in Envoy's formatters. Any other operator raises ValueError.
    """
    if callable(key):
        return key
    parts = _parse(key)
    if not any(name for _, name in parts):
        return lambda head: key
    return lambda head: "".join(text if name is None else head.get(name) or "-" for text, name in parts)


def bounded(key: str) -> str:
    """The key, or its digest when it is long: what a caller sends must not decide how large a store's keys are."""
    if len(key) <= LONGEST_KEY:
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(template: str) -> tuple[tuple[str, str | None], ...]:
    """(literal text, None) and ("", header name) in order."""
    parts: list[tuple[str, str | None]] = []
    end = 0
    for match in _OPERATOR.finditer(template):
        operator, argument = match.groups()
        if operator != "REQ" or argument is None:
            raise ValueError(f"key {template!r}: {match.group()} is not supported; use %REQ(header-name)%")
        parts.append((template[end : match.start()], None))
        parts.append(("", argument.strip().lower()))
        end = match.end()
    parts.append((template[end:], None))
    return tuple(parts)
