"""What becomes of a request's path and authority."""

from __future__ import annotations

from typing import Any

from meshlib.model.matchers import RegexRewrite
from meshlib.model.operators import empty_operators, has_stray_percent, unknown_operators
from meshlib.model.report import ResourceError
from meshlib.model.route import HostRewrite
from meshlib.sources.xds.decode.common import unpack
from meshlib.sources.xds.decode.context import Context, join
from meshlib.sources.xds.decode.regex import regex_rewrite

PATH_REWRITE_FIELDS = ("prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "path_rewrite")
HOST_REWRITE_FIELDS = (
    *("host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header", "host_rewrite_path_regex", "host_rewrite"),
)
_TEMPLATE = "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig"
_MODULES = {_TEMPLATE: "envoy.extensions.path.rewrite.uri_template.v3.uri_template_rewrite_pb2"}


def path_rewrites(ctx: Context, message: Any, path: str) -> tuple[RegexRewrite | None, str, str]:
    """`regex_rewrite`, `path_rewrite_policy` (its template) and `path_rewrite` of a RouteAction; at most one path
    rewrite may be set.
    """
    given = [name for name in PATH_REWRITE_FIELDS if _is_set(message, name)]
    if len(given) > 1:
        raise ResourceError(path, f"only one of {', '.join(PATH_REWRITE_FIELDS)} may be set, not {' and '.join(given)}")
    regex = None
    if message.HasField("regex_rewrite"):
        regex = regex_rewrite(ctx, message.regex_rewrite, join(path, "regex_rewrite"))
    return (
        regex,
        _template(ctx, message, join(path, "path_rewrite_policy")),
        _format(ctx, message, "path_rewrite", path),
    )


def _is_set(message: Any, name: str) -> bool:
    field = message.DESCRIPTOR.fields_by_name[name]
    return message.HasField(name) if field.has_presence else bool(getattr(message, name))


def _template(ctx: Context, message: Any, path: str) -> str:
    if not message.HasField("path_rewrite_policy"):
        return ""
    where = join(path, "typed_config")
    name, found = unpack(message.path_rewrite_policy.typed_config, _MODULES, where)
    if found is None:
        ctx.degraded(where, f"the rewriter {name!r} is not supported; the path is not rewritten")
        return ""
    return str(found.path_template_rewrite)


def _format(ctx: Context, message: Any, name: str, path: str) -> str:
    """A text with operators, empty where it is not there or cannot be filled in."""
    text, where = str(getattr(message, name)), join(path, name)
    if has_stray_percent(text):
        raise ResourceError(where, f"{text!r}: a percent sign that is not part of an operator is written %%")
    if unknown := unknown_operators(text):
        ctx.degraded(where, f"%{unknown[0]}% is not known to a client: nothing is rewritten")
        return ""
    if empty := empty_operators(text):
        ctx.degraded(where, f"%{empty[0]}% has no value for a client: it stands for nothing")
    return text


def host_rewrite(ctx: Context, message: Any, path: str) -> HostRewrite | None:
    """The `host_rewrite_specifier` of a RouteAction."""
    match message.WhichOneof("host_rewrite_specifier"):
        case "host_rewrite_literal":
            return HostRewrite("literal", message.host_rewrite_literal)
        case "host_rewrite_header":
            return HostRewrite("header", message.host_rewrite_header.lower())
        case "auto_host_rewrite":
            return HostRewrite("auto") if message.auto_host_rewrite.value else None
        case "host_rewrite_path_regex":
            found = regex_rewrite(ctx, message.host_rewrite_path_regex, join(path, "host_rewrite_path_regex"))
            return HostRewrite("path_regex", regex=found) if found is not None else None
        case "host_rewrite":
            text = _format(ctx, message, "host_rewrite", path)
            return HostRewrite("format", text) if text else None
    return None
