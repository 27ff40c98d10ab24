"""`VirtualHost.require_tls`: requests that are not over https are answered with a redirect to it.

As in Envoy the scheme is what `x-forwarded-proto` says, else the request's own, and the redirect comes before any route
and without the headers that routes and virtual hosts add. EXTERNAL_ONLY spares requests that are internal, and none is:
that takes the `internal_address_config` of a connection manager, which lists no addresses by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.request import RequestHead
from meshlib.model.route import RedirectAction, Route

Insecure = Callable[[RequestHead], bool]

TLS_ROUTE = Route(RouteMatch(PathMatcher("prefix", "")), RedirectAction(https_redirect=True), name="require_tls")
"""The route such a request takes; it stands behind the virtual host's own."""


def insecure(require_tls: Literal["NONE", "EXTERNAL_ONLY", "ALL"]) -> Insecure | None:
    """Whether a request must be redirected; None where none must."""
    return None if require_tls == "NONE" else _plain


def to_https(head: RequestHead) -> str:
    """Where to: the same authority, with its port, and the same path."""
    return f"https://{head.authority}{head.path}"


def _plain(head: RequestHead) -> bool:
    return (head.get("x-forwarded-proto") or head.scheme) != "https"
