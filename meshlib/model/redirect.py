"""Internal redirects (`envoy.config.route.v3.InternalRedirectPolicy`): a redirect response followed by the mesh."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["InternalRedirectPolicy"]


@dataclass(frozen=True, slots=True)
class InternalRedirectPolicy:
    """Which redirect responses of an endpoint are followed, instead of given to the caller.

    `max_internal_redirects` for one call; `codes` are the statuses that count. `allow_cross_scheme`: from http to https
    and back too; with `safe_cross_scheme` not from http to https. `previous_routes`: from this route to none that it
    has redirected the call to before. `allowed_routes`: only to routes of these names; None: to any. `headers_to_copy`
    (lower case) are taken from the redirect response into the new request.
    """

    max_internal_redirects: int = 1
    codes: tuple[int, ...] = (302,)
    previous_routes: bool = False
    allowed_routes: tuple[str, ...] | None = None
    safe_cross_scheme: bool = False
    allow_cross_scheme: bool = False
    headers_to_copy: tuple[str, ...] = ()
