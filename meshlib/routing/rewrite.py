"""Path and host rewrites of routes, and where redirects point (Envoy's `finalizePathHeader`, `newUri`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.report import ResourceError
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.model.route import HostRewrite, RedirectAction, Route, RouteAction
from meshlib.routing.facts import Scene
from meshlib.routing.formatters import compile_format
from meshlib.routing.headers import MakeFacts
from meshlib.routing.located import at
from meshlib.routing.regex import compile_substitution
from meshlib.routing.text import as_wire
from meshlib.routing.uri_template import compile_template_rewrite

NewPath = Callable[[RequestHead], str]
Location = Callable[[RequestHead], str]


class RewritePath(Protocol):
    """Makes the upstream's path with its query. `headers` are the request's after the route's mutations, and `facts`
    what else is known of the call: only a formatted rewrite looks at them.
    """

    def __call__(self, head: RequestHead, headers: RawHeaders = (), facts: MakeFacts | None = None, /) -> str:
        """The path."""


class RewriteHost(Protocol):
    """Makes the upstream's authority, None to leave it alone. Takes the request (Envoy: with the route's header
    mutations done, the path not yet rewritten), the hostname of the chosen endpoint, empty when it has none, and what
    else is known of the call.
    """

    def __call__(self, head: RequestHead, hostname: str, facts: MakeFacts | None = None, /) -> str | None:
        """The authority."""


def compile_path_rewrite(route: Route) -> RewritePath | None:
    """What makes the upstream's path (with the query, which is kept), None when the route leaves paths alone."""
    action = route.action
    if not isinstance(action, RouteAction):
        return None
    if action.path_rewrite:
        with at("path_rewrite"):
            return _formatted(action.path_rewrite)
    plain = _plain_rewrite(action, route.match.path)
    return None if plain is None else lambda head, headers=(), facts=None: plain(head)


def _plain_rewrite(action: RouteAction, matcher: PathMatcher) -> NewPath | None:
    if action.prefix_rewrite:
        return _replace_matched(matcher, as_wire(action.prefix_rewrite))
    if action.regex_rewrite is not None:
        with at("regex_rewrite"):
            return _replace_path(compile_substitution(action.regex_rewrite))
    if action.path_template_rewrite:
        with at("path_rewrite_policy"):
            if matcher.kind != "uri_template":
                raise ResourceError("", "a path template is only rewritten where the route matches by one")
            return _replace_path(compile_template_rewrite(matcher.value, action.path_template_rewrite))
    return None


def _formatted(text: str) -> RewritePath:
    """The path by a text with operators, and the request's query; the request's path where the text comes out empty."""
    made = compile_format(text)

    def rewrite(head: RequestHead, headers: RawHeaders = (), facts: MakeFacts | None = None, /) -> str:
        new = made if isinstance(made, str) else made(Scene(head, headers, (), facts))
        return _absolute(new + head.path[len(head.path_only) :]) if new else head.path

    return rewrite


def _replace_matched(matcher: PathMatcher, replacement: str) -> NewPath:
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


def _replace_path(substitute: Callable[[str], str]) -> NewPath:
    def rewrite(head: RequestHead) -> str:
        path = head.path_only
        new = substitute(path)
        # An empty path cannot be asked for: Envoy leaves the request's.
        return _absolute(new + head.path[len(path) :]) if new else head.path

    return rewrite


def compile_host_rewrite(rewrite: HostRewrite | None) -> RewriteHost | None:
    """What makes the upstream's authority, None when it is left alone."""
    if rewrite is None:
        return None
    if rewrite.kind == "literal":
        literal = as_wire(rewrite.value)
        return lambda head, hostname, facts=None: literal
    if rewrite.kind == "auto":
        return lambda head, hostname, facts=None: hostname or None
    if rewrite.kind == "header":
        name = rewrite.value.lower()
        # Untrusted input: only the first value is used.
        return lambda head, hostname, facts=None: next(iter(head.get_all(name)), None) or None
    if rewrite.kind == "format":
        with at("host_rewrite"):
            made = compile_format(rewrite.value, missing="-")
        if isinstance(made, str):
            return lambda head, hostname, facts=None: made or None
        return lambda head, hostname, facts=None: made(Scene(head, head.headers, (), facts)) or None
    if rewrite.regex is None:
        return None
    with at("host_rewrite_path_regex"):
        substitute = compile_substitution(rewrite.regex)
    return lambda head, hostname, facts=None: substitute(head.path_only)


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


def _redirect_path(redirect: RedirectAction, matcher: PathMatcher) -> NewPath:
    if redirect.path_redirect:
        return _fixed_path(as_wire(redirect.path_redirect), redirect.strip_query)
    rewrite: NewPath = lambda head: head.path  # noqa: E731  # the default of the two below
    if redirect.regex_rewrite is not None:
        with at("regex_rewrite"):
            rewrite = _replace_path(compile_substitution(redirect.regex_rewrite))
    elif redirect.prefix_rewrite:
        rewrite = _replace_matched(matcher, as_wire(redirect.prefix_rewrite))
    if redirect.strip_query:
        return lambda head: rewrite(head).partition("?")[0]
    return rewrite


def _fixed_path(path: str, strip_query: bool) -> NewPath:
    """A configured path. Its own query wins over the request's and is never stripped."""
    if "?" in path or strip_query:
        return lambda head: path

    def with_query(head: RequestHead) -> str:
        _, mark, query = head.path.partition("?")
        return path + mark + query

    return with_query
