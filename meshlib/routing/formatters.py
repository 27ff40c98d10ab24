"""Header values with `%...%` formatters, compiled. A client library can honour those that ask for request headers.

Everything else Envoy knows (addresses, connection properties, times, upstream facts) is not there when a header is
mutated here: it is refused with `ResourceError` at compile time, never sent as wrong text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from meshlib.model.headers import REQUEST_HEADER_OPERATORS
from meshlib.model.report import ResourceError
from meshlib.routing.text import as_wire

FirstValue = Callable[[str], str | None]
"""The first value of a request header (lower-case name), None when missing."""
Format = Callable[[FirstValue], str]

_COMMAND = re.compile(r"%(?:%|(?P<name>[A-Z0-9_]+)(?:\((?P<arguments>[^)%]*)\))?(?::(?P<length>[0-9]{1,9}))?%)?")
_Part = str | Format


def compile_format(text: str) -> str | Format:
    """The value itself when it has no formatters (`%%` is a percent sign), else a function that makes it."""
    parts = _parse(as_wire(text))
    formats = [part for part in parts if not isinstance(part, str)]
    if not formats:
        return "".join(part for part in parts if isinstance(part, str))
    if len(parts) == 1:
        return formats[0]
    return lambda header: "".join(part if isinstance(part, str) else part(header) for part in parts)


def _parse(text: str) -> list[_Part]:
    parts: list[_Part] = []
    end = 0
    for found in _COMMAND.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found[0] == "%%":
            parts.append("%")
        elif found["name"] in REQUEST_HEADER_OPERATORS:
            parts.append(_request_header(text, found["arguments"] or "", found["length"]))
        elif found["name"]:
            reason = f"{found[0]} is not known to a client; only %REQ(name?other):length% and %% are"
            raise ResourceError("value", reason)
        else:
            raise ResourceError("value", f"{text!r}: a percent sign that is not part of a formatter is written %%")
    parts.append(text[end:])
    return [part for part in parts if part != ""]


def _request_header(text: str, arguments: str, length: str | None) -> Format:
    names = [name.lower() for name in arguments.split("?")]
    if not names[0] or len(names) > 2:
        raise ResourceError("value", f"{text!r}: %REQ takes one header name and one to fall back on: %REQ(name?other)%")
    limit = int(length) if length else None

    def value(header: FirstValue) -> str:
        for name in names:
            found = header(name)
            if found is not None:
                return found[:limit]
        return ""

    return value
