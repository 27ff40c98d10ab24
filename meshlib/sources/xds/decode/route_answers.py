"""Actions that answer without an upstream: RedirectAction and DirectResponseAction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meshlib.model.metadata import Struct, Value
from meshlib.model.operators import empty_operators, has_stray_percent, unknown_operators
from meshlib.model.report import ResourceError
from meshlib.model.route import DirectResponseAction, JsonFormat, RedirectAction, TextFormat
from meshlib.sources.xds.decode.common import struct
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.regex import regex_rewrite

_REDIRECT = fields(
    "https_redirect",
    "scheme_redirect",
    "host_redirect",
    "port_redirect",
    "path_redirect",
    "prefix_rewrite",
    "regex_rewrite",
    "response_code",
    "strip_query",
)
_CODES = (301, 302, 303, 307, 308)
_DIRECT_RESPONSE = fields("status", "body", "body_format")
_BODY_FORMAT = fields(
    "text_format",
    "text_format_source",
    "json_format",
    "omit_empty_values",
    "content_type",
    harmless={"json_format_options": "keys are sorted in any case"},
    instead={"formatters": "only the operators that need no extension are known"},
)


def redirect(ctx: Context, message: Any, path: str) -> RedirectAction:
    """A RedirectAction (its response code is validated by its rules)."""
    ctx.check_fields(message, path, _REDIRECT)
    rewrite = message.WhichOneof("path_rewrite_specifier")
    regex = None
    if rewrite == "regex_rewrite":
        regex = regex_rewrite(ctx, message.regex_rewrite, join(path, "regex_rewrite"))
    return RedirectAction(
        response_code=_CODES[message.response_code],
        https_redirect=message.https_redirect,
        scheme_redirect=message.scheme_redirect,
        host_redirect=message.host_redirect,
        port_redirect=message.port_redirect or None,
        path_redirect=message.path_redirect,
        prefix_rewrite=message.prefix_rewrite if rewrite == "prefix_rewrite" else None,
        regex_rewrite=regex,
        strip_query=message.strip_query,
    )


def direct_response(ctx: Context, message: Any, path: str, max_body: int) -> DirectResponseAction:
    """A DirectResponseAction. Its body has at most `max_body` bytes; a file or a variable is read once, now."""
    ctx.check_fields(message, path, _DIRECT_RESPONSE)
    where = join(path, "body")
    body = _read(message.body, where)
    if len(body) > max_body:
        raise ResourceError(
            where, f"has {len(body)} bytes, at most max_direct_response_body_size_bytes ({max_body}) are allowed"
        )
    if not message.HasField("body_format"):
        return DirectResponseAction(message.status, body)
    made = _body_format(ctx, message.body_format, join(path, "body_format"))
    return DirectResponseAction(message.status, body, made, message.body_format.content_type)


def _body_format(ctx: Context, message: Any, path: str) -> TextFormat | JsonFormat | None:
    """A SubstitutionFormatString; None, and told, where it holds an operator that is not known."""
    ctx.check_fields(message, path, _BODY_FORMAT)
    kind = message.WhichOneof("format")
    where, omit = join(path, str(kind)), message.omit_empty_values
    if kind == "json_format":
        template = struct(message.json_format)
        usable = all(_usable(ctx, text, where) for text in _texts(template))
        return JsonFormat(template, omit) if usable else None
    text = message.text_format if kind == "text_format" else _read(message.text_format_source, where).decode()
    return TextFormat(text, omit) if _usable(ctx, text, where) else None


def _usable(ctx: Context, text: str, path: str) -> bool:
    if has_stray_percent(text):
        raise ResourceError(path, f"{text!r}: a percent sign that is not part of an operator is written %%")
    unknown = unknown_operators(text)
    if unknown:
        ctx.degraded(path, f"%{unknown[0]}% is not known to a client: the body is sent as it is")
    elif empty := empty_operators(text):
        ctx.degraded(path, f"%{empty[0]}% has no value for a client")
    return not unknown


def _texts(value: Value) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Struct(items=items):
            for _, item in items:
                yield from _texts(item)
        case tuple():
            for item in value:
                yield from _texts(item)


def _read(message: Any, path: str) -> bytes:
    """The bytes of a `DataSource`."""
    kind = message.WhichOneof("specifier")
    match kind:
        case "filename":
            try:
                return Path(message.filename).read_bytes()
            except OSError as error:
                raise ResourceError(join(path, kind), f"cannot be read: {error}") from None
        case "environment_variable":
            value = os.environ.get(message.environment_variable)
            if value is None:
                raise ResourceError(join(path, kind), f"{message.environment_variable!r} is not set")
            return value.encode()
        case "inline_bytes":
            return bytes(message.inline_bytes)
    return str(message.inline_string).encode()
