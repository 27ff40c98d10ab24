"""Actions that answer without an upstream: RedirectAction and DirectResponseAction."""

from __future__ import annotations

from typing import Any

from meshlib.model.report import ResourceError
from meshlib.model.route import DirectResponseAction, RedirectAction
from meshlib.sources.xds.decode.common import data_source
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
_DIRECT_RESPONSE = fields("status", "body", instead={"body_format": "the body is sent as it is"})


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
    """A DirectResponseAction with an inline body of at most `max_body` bytes."""
    ctx.check_fields(message, path, _DIRECT_RESPONSE)
    where = join(path, "body")
    filename, body = data_source(ctx, message.body, where)
    if filename:
        ctx.degraded(join(where, "filename"), "body files are not read; the body is empty", "use inline_string")
    if len(body) > max_body:
        raise ResourceError(
            where, f"has {len(body)} bytes, at most max_direct_response_body_size_bytes ({max_body}) are allowed"
        )
    return DirectResponseAction(message.status, body)
