"""InternalRedirectPolicy, and the field it has replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import unpack, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

INTERNAL_REDIRECT_FIELDS = ("internal_redirect_policy", "internal_redirect_action", "max_internal_redirects")
_POLICY = fields(
    "max_internal_redirects",
    "redirect_response_codes",
    "predicates",
    "allow_cross_scheme_redirect",
    "response_headers_to_copy",
)
_CODES = frozenset((301, 302, 303, 307, 308))
_EXTENSIONS = "envoy.extensions.internal_redirect"
_PREVIOUS = f"{_EXTENSIONS}.previous_routes.v3.PreviousRoutesConfig"
_ALLOWED = f"{_EXTENSIONS}.allow_listed_routes.v3.AllowListedRoutesConfig"
_SAFE = f"{_EXTENSIONS}.safe_cross_scheme.v3.SafeCrossSchemeConfig"
_MODULES = {
    _PREVIOUS: f"{_EXTENSIONS}.previous_routes.v3.previous_routes_config_pb2",
    _ALLOWED: f"{_EXTENSIONS}.allow_listed_routes.v3.allow_listed_routes_config_pb2",
    _SAFE: f"{_EXTENSIONS}.safe_cross_scheme.v3.safe_cross_scheme_config_pb2",
}
_HANDLE = 1  # RouteAction.HANDLE_INTERNAL_REDIRECT


def internal_redirect(ctx: Context, message: Any, path: str) -> InternalRedirectPolicy | None:
    """Of a RouteAction. The deprecated `internal_redirect_action` is a policy of its own where there is no other."""
    if message.HasField("internal_redirect_policy"):
        return _policy(ctx, message.internal_redirect_policy, join(path, "internal_redirect_policy"))
    if message.internal_redirect_action == _HANDLE:
        return InternalRedirectPolicy(wrapped(message, "max_internal_redirects", 1))
    if message.HasField("max_internal_redirects"):
        ctx.degraded(join(path, "max_internal_redirects"), "without internal_redirect_policy no redirect is followed")
    return None


def _policy(ctx: Context, message: Any, path: str) -> InternalRedirectPolicy:
    ctx.check_fields(message, path, _POLICY)
    codes = tuple(code for code in message.redirect_response_codes if code in _CODES)  # others are left out, as there
    policy = InternalRedirectPolicy(
        wrapped(message, "max_internal_redirects", 1),
        codes if message.redirect_response_codes else (302,),
        allow_cross_scheme=message.allow_cross_scheme_redirect,
        headers_to_copy=_headers_to_copy(message, join(path, "response_headers_to_copy")),
    )
    for index, predicate in enumerate(message.predicates):
        policy = _with(ctx, policy, predicate, f"{join(path, 'predicates')}[{index}]")
    return policy


def _with(ctx: Context, policy: InternalRedirectPolicy, message: Any, path: str) -> InternalRedirectPolicy:
    """A policy with one more predicate; with one that is not known nothing is followed, which is what it would say at
    its strictest.
    """
    name, predicate = unpack(message.typed_config, _MODULES, join(path, "typed_config"))
    if predicate is None:
        ctx.degraded(path, f"predicate {name or message.name} is not known: redirects of this route are not followed")
        return replace(policy, codes=())
    if name == _ALLOWED:
        allowed = tuple(predicate.allowed_route_names)
        both = allowed if policy.allowed_routes is None else tuple(n for n in policy.allowed_routes if n in allowed)
        return replace(policy, allowed_routes=both)
    return replace(policy, previous_routes=True) if name == _PREVIOUS else replace(policy, safe_cross_scheme=True)


def _headers_to_copy(message: Any, path: str) -> tuple[str, ...]:
    names = tuple(name.lower() for name in message.response_headers_to_copy)
    for index, name in enumerate(names):
        if name.startswith(":") or name == "host":
            raise ResourceError(f"{path}[{index}]", f"{name!r} cannot be copied: it says where the request goes")
    return names
