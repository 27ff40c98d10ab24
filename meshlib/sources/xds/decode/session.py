"""The stateful session filter, and what of its state travels with the caller."""

from __future__ import annotations

from typing import Any

from meshlib.model.report import ResourceError
from meshlib.model.session import SessionCookie, SessionHeader, StatefulSession
from meshlib.sources.xds.decode.common import duration, unpack
from meshlib.sources.xds.decode.context import Context, fields, join

_FILTER = "envoy.extensions.filters.http.stateful_session.v3"
_STATE = "envoy.extensions.http.stateful_session"
SESSION_TYPE = f"{_FILTER}.StatefulSession"
SESSION_PER_ROUTE_TYPE = f"{_FILTER}.StatefulSessionPerRoute"
SESSION_MODULE = f"{_FILTER}.stateful_session_pb2"
_COOKIE = f"{_STATE}.cookie.v3.CookieBasedSessionState"
_HEADER = f"{_STATE}.header.v3.HeaderBasedSessionState"
_MODULES = {_COOKIE: f"{_STATE}.cookie.v3.cookie_pb2", _HEADER: f"{_STATE}.header.v3.header_pb2"}

_SESSION = fields("session_state", "strict", harmless={"stat_prefix": "a name for metrics only"})
_PER_ROUTE = fields("disabled", "stateful_session")
_COOKIE_FIELDS = fields("name", "ttl", "path", "attributes")


def stateful_session(ctx: Context, message: Any, path: str) -> StatefulSession:
    """The filter, or its configuration for a route."""
    ctx.check_fields(message, path, _SESSION)
    if not message.HasField("session_state"):
        return StatefulSession(None, message.strict)
    where = join(path, "session_state.typed_config")
    name, state = unpack(message.session_state.typed_config, _MODULES, where)
    if state is None:
        ctx.degraded(where, f"session state {name or message.session_state.name} is not known: there is no session")
        return StatefulSession(None, message.strict)
    if name == _HEADER:
        return StatefulSession(SessionHeader(state.name.lower()), message.strict)
    return StatefulSession(_cookie(ctx, state.cookie, join(where, "cookie")), message.strict)


def session_per_route(ctx: Context, message: Any, path: str) -> tuple[StatefulSession, bool]:
    """(The configuration for a route, whether there is no session on it)."""
    ctx.check_fields(message, path, _PER_ROUTE)
    if message.disabled:
        return StatefulSession(), True
    return stateful_session(ctx, message.stateful_session, join(path, "stateful_session")), False


def _cookie(ctx: Context, message: Any, path: str) -> SessionCookie:
    ctx.check_fields(message, path, _COOKIE_FIELDS)
    if not message.name:
        raise ResourceError(join(path, "name"), "a session cookie needs a name")
    ttl = duration(message, "ttl")
    attributes = tuple((item.name, item.value) for item in message.attributes)
    return SessionCookie(message.name, message.path, int(ttl) if ttl else None, attributes)
