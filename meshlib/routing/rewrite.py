"""Path and host rewrites of routes, and where redirects point (Envoy's `finalizePathHeader`, `newUri`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.request import RequestHead
from meshlib.model.route import HostRewrite, RedirectAction, Route, RouteAction
from meshlib.routing.located import at
from meshlib.routing.regex import compile_substitution
from meshlib.routing.text import as_wire

RewritePath = Callable[[RequestHead], str]
RewriteHost = Callable[[RequestHead, str], str | None]
Location = Callable[[RequestHead], str]


def compile_path_rewrite(route: Route) -> RewritePath | None:
    """What makes the upstream's path (with the query, which is kept), None when the route leaves paths alone."""
    action = route.action
    if not isinstance(action, RouteAction):
        return None
    if action.prefix_rewrite:
        return _replace_matched(route.match.path, as_wire(action.prefix_rewrite))
    if action.regex_rewrite is not None:
        with at("regex_rewrite"):
            return _replace_path(compile_substitution(action.regex_rewrite))
    return None


def _replace_matched(matcher: PathMatcher, replacement: str) -> RewritePath:
    """Replace what the route's path matcher matched: its literal, or the whole path for a regex.

    Nothing is added or dropped at the seam, as in Envoy: prefix `/a` with `/` makes `//b` of `/a/b`.
    """
    if matcher.kind == "safe_regex":
        return lambda head: _absolute(replacement + head.path[len(head.path_only) :])
    length = len(as_wire(matcher.value))
    return lambda head: _absolute(replacement + head.path[length:])


def _absolute(path: str) -> str:
    """The path with its leading slash, should a rewrite have taken it: without it there is no request to send."""
    return path if path.startswith("/") else "/" + path


def _replace_path(substitute: Callable[[str], str]) -> RewritePath:
    def rewrite(head: RequestHead) -> str:
        path = head.path_only
        new = substitute(path)
        # An empty path cannot be asked for: Envoy leaves the request's.
        return _absolute(new + head.path[len(path) :]) if new else head.path

    return rewrite


def compile_host_rewrite(rewrite: HostRewrite | None) -> RewriteHost | None:
    """What makes the upstream's authority; it gives None to leave the authority alone.

    Takes the request (Envoy: with the route's header mutations done, the path not yet rewritten) and the hostname of
    the chosen endpoint, empty when it has none.
    """
    if rewrite is None:
        return None
    if rewrite.kind == "literal":
        literal = as_wire(rewrite.value)
        return lambda head, hostname: literal
    if rewrite.kind == "auto":
        return lambda head, hostname: hostname or None
    if rewrite.kind == "header":
        name = rewrite.value.lower()
        # Untrusted input: only the first value is used.
        return lambda head, hostname: next(iter(head.get_all(name)), None) or None
    if rewrite.regex is None:
        return None
    with at("host_rewrite_path_regex"):
        substitute = compile_substitution(rewrite.regex)
    return lambda head, hostname: substitute(head.path_only)


def redirect_location(redirect: RedirectAction, head: RequestHead, match: RouteMatch) -> str:
    """The `location` of a redirect by a route with that match."""
    return compile_redirect(redirect, match)(head)


@lru_cache(maxsize=4096)
def compile_redirect(redirect: RedirectAction, match: RouteMatch) -> Location:
    """What makes the location: `scheme://host[:port]/path?query`, each part the redirect's or the request's."""
    path = _redirect_path(redirect, match.path)
    scheme = redirect.scheme_redirect or ("https" if redirect.https_redirect else "")
    host = as_wire(redirect.host_redirect)
    port = f":{redirect.port_redirect}" if redirect.port_redirect else ""

    def location(head: RequestHead) -> str:
        to_scheme = scheme or head.scheme
        to_host = host or _request_host(head, to_scheme, bool(port))
        to_path = path(head)
        slash = "" if to_path.startswith("/") else "/"
        return f"{to_scheme}://{to_host}{port}{slash}{to_path}"

    return location


def _request_host(head: RequestHead, to_scheme: str, new_port: bool) -> str:
    """The request's authority; its port goes when a new one comes, or when it was its old scheme's default."""
    host, colon, port = head.authority.rpartition(":")
    if not colon or "]" in port:
        return head.authority
    default = {"http": "80", "https": "443"}.get(head.scheme)
    drop = new_port or (to_scheme != head.scheme and port == default)
    return host if drop else head.authority


def _redirect_path(redirect: RedirectAction, matcher: PathMatcher) -> RewritePath:
    if redirect.path_redirect:
        return _fixed_path(as_wire(redirect.path_redirect), redirect.strip_query)
    rewrite: RewritePath = lambda head: head.path  # noqa: E731  # the default of the two below
    if redirect.regex_rewrite is not None:
        with at("regex_rewrite"):
            rewrite = _replace_path(compile_substitution(redirect.regex_rewrite))
    elif redirect.prefix_rewrite:
        rewrite = _replace_matched(matcher, as_wire(redirect.prefix_rewrite))
    if redirect.strip_query:
        return lambda head: rewrite(head).partition("?")[0]
    return rewrite


def _fixed_path(path: str, strip_query: bool) -> RewritePath:
    """A configured path. Its own query wins over the request's and is never stripped."""
    if "?" in path or strip_query:
        return lambda head: path

    def with_query(head: RequestHead) -> str:
        _, mark, query = head.path.partition("?")
        return path + mark + query

    return with_query
