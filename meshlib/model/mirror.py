"""Request mirroring (`envoy.config.route.v3.RouteAction.RequestMirrorPolicy`): copies that nobody waits for."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.headers import HeaderMutations
from meshlib.model.matchers import ALWAYS, FractionalPercent

__all__ = ["RequestMirrorPolicy"]


@dataclass(frozen=True, slots=True)
class RequestMirrorPolicy:
    """Where copies go: to `cluster`, or to the one that the request header `cluster_header` (lower case) names.

    `fraction` of the requests is mirrored. The copy's host is the request's with `-shadow` before its port, unless
    `keeps_host`, or `host_rewrite_literal`. `request_headers` are changes of the copy's headers, one after the other.
    `traced` False: the copy has no span.
    """

    cluster: str = ""
    cluster_header: str = ""
    fraction: FractionalPercent = ALWAYS
    keeps_host: bool = False
    host_rewrite_literal: str = ""
    request_headers: tuple[HeaderMutations, ...] = ()
    traced: bool = True
