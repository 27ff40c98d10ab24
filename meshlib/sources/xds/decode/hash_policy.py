"""`hash_policy` of a route: which parts of a request make its hash."""

from __future__ import annotations

from typing import Any

from meshlib.model.route import HashPolicy
from meshlib.sources.xds.decode.common import duration
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.regex import regex_rewrite

_COOKIE = fields("name", "ttl", "path", "attributes")


def hash_policies(ctx: Context, message: Any, path: str) -> tuple[HashPolicy, ...]:
    """The field `hash_policy` of a route, or of a balancer by hash."""
    where = join(path, "hash_policy")
    found = (_hash_policy(ctx, item, f"{where}[{index}]") for index, item in enumerate(message.hash_policy))
    return tuple(policy for policy in found if policy is not None)


def _hash_policy(ctx: Context, message: Any, path: str) -> HashPolicy | None:
    kind = message.WhichOneof("policy_specifier")
    found = getattr(message, kind)
    where = join(path, kind)
    match kind:
        case "header":
            rewrite = None
            if found.HasField("regex_rewrite"):
                rewrite = regex_rewrite(ctx, found.regex_rewrite, join(where, "regex_rewrite"))
            return HashPolicy("header", found.header_name.lower(), message.terminal, rewrite)
        case "cookie":
            return _cookie(ctx, found, where, terminal=message.terminal)
        case "connection_properties":
            ctx.degraded(where, "a caller has no downstream connection: the policy never yields a hash")
            return HashPolicy("source_ip", terminal=message.terminal) if found.source_ip else None
        case "query_parameter":
            return HashPolicy("query_parameter", found.name, message.terminal)
    return HashPolicy("filter_state", found.key, message.terminal)


def _cookie(ctx: Context, message: Any, path: str, *, terminal: bool) -> HashPolicy:
    ctx.check_fields(message, path, _COOKIE)
    attributes = tuple((attribute.name, attribute.value) for attribute in message.attributes)
    ttl = duration(message, "ttl")
    return HashPolicy("cookie", message.name, terminal, ttl=ttl, path=message.path, attributes=attributes)
