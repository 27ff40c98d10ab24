"""Sticky sessions (`envoy.extensions.filters.http.stateful_session.v3`): a caller comes back to the same endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.filters import FilterConfig

__all__ = ["SessionCookie", "SessionHeader", "StatefulSession"]


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """The endpoint's address travels in a cookie, under `path` and below. `ttl` in seconds; None: as long as the caller
    keeps it. `attributes` are written into the cookie as they are.
    """

    name: str
    path: str = ""
    ttl: int | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    kind: Literal["cookie"] = "cookie"


@dataclass(frozen=True, slots=True)
class SessionHeader:
    """The endpoint's address travels in a header (lower case) of response and request."""

    name: str
    kind: Literal["header"] = "header"


@dataclass(frozen=True, slots=True)
class StatefulSession(FilterConfig):
    """`envoy.filters.http.stateful_session`. Without `state` the filter does nothing.

    The endpoint is used as long as its health permits (`Cluster.override_host_statuses`); then the request is balanced
    as any other, or with `strict` fails (UH).
    """

    state: SessionCookie | SessionHeader | None = None
    strict: bool = False
