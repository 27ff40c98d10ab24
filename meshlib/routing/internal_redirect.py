"""Where a redirect response sends a call, if its route follows it (`Filter::convertRequestHeadersForInternalRedirect`).

What is not followed is told in one word each, Envoy's: its counters are `passthrough_internal_redirect_*`.
"""

from __future__ import annotations

import re

from meshlib.model.outcome import Outcome
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.routing.text import as_wire

BAD_LOCATION = "bad-location"
UNSAFE_SCHEME = "unsafe-scheme"
TOO_MANY = "too-many-redirects"
NO_ROUTE = "no-route"
PREDICATE = "predicate"
NOT_REPLAYABLE = "not-replayable"

_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@\s]*@)?((?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{1,5})?)(/[^\s#]*|\?[^\s#]*)?(?:#\S*)?"
)
_ORIGINAL_URL = b"x-envoy-original-url"
_ATTEMPT_COUNT = b"x-envoy-attempt-count"
_SEE_OTHER = 303


class InternalRedirects:
    """The compiled policy of a route."""

    __slots__ = ("_copied", "codes", "policy")

    def __init__(self, policy: InternalRedirectPolicy) -> None:
        self.policy = policy
        self.codes = frozenset(policy.codes)
        self._copied = tuple(as_wire(name).encode("latin-1") for name in policy.headers_to_copy)

    def target(self, head: RequestHead, outcome: Outcome, followed: int) -> RequestHead | str:
        """The request for the new location, or why there is none. `head` is the request as it went to the endpoint;
        `followed` counts the redirects of the call so far.
        """
        url = _URL.fullmatch(outcome.header("location") or "")
        if url is None:
            return BAD_LOCATION
        scheme, authority, path = url[1].lower(), url[2], url[3] or "/"
        if not self.policy.allow_cross_scheme and (scheme == "http") != (head.scheme == "http"):
            return UNSAFE_SCHEME
        if scheme not in ("http", "https"):
            return BAD_LOCATION
        if followed >= self.policy.max_internal_redirects:
            return TOO_MANY
        method, headers = head.method, self._headers(head, outcome)
        if outcome.status == _SEE_OTHER and method not in ("GET", "HEAD"):
            method, headers = "GET", _without(headers, b"content-length", b"transfer-encoding")
        headers = [(b"Host", authority.encode("latin-1")), *_without(headers, b"host")]
        return RequestHead(method, scheme, authority, path if path[0] == "/" else f"/{path}", headers)

    def accepts(self, route: str, scheme: str, target: RequestHead, to: str, seen: frozenset[tuple[str, str]]) -> bool:
        """Whether the predicates let the route named `route` redirect from `scheme` to the one named `to`; `seen` are
        such pairs before.
        """
        policy = self.policy
        if policy.previous_routes and (route, to) in seen:
            return False
        if policy.allowed_routes is not None and to not in policy.allowed_routes:
            return False
        return not policy.safe_cross_scheme or scheme == "https" or target.scheme != "https"

    def _headers(self, head: RequestHead, outcome: Outcome) -> list[tuple[bytes, bytes]]:
        """The request's headers, with those that the response has or lacks in their place, and where it was."""
        headers = _without(head.headers, *self._copied, _ORIGINAL_URL, _ATTEMPT_COUNT)
        given = outcome.headers or ()
        headers += [(name.lower(), value) for name, value in given if name.lower() in self._copied]
        original = f"{'http' if head.scheme == 'http' else 'https'}://{head.authority}{head.path}"
        return [*headers, (_ORIGINAL_URL, original.encode("latin-1"))]


def drops_body(head: RequestHead, target: RequestHead) -> bool:
    """Whether the new request goes without the body of the old: after 303 it is a GET."""
    return head.method != target.method


def _without(headers: RawHeaders, *names: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if pair[0].lower() not in names]
