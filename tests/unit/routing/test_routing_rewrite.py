"""Path and host rewrites, and redirect locations."""

import pytest

from meshlib.model.matchers import PathMatcher, RegexRewrite, RouteMatch
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, HostRewrite, RedirectAction, Route, RouteAction
from meshlib.routing.rewrite import compile_host_rewrite, compile_path_rewrite, redirect_location


def head(path: str, authority: str = "a.test", scheme: str = "http") -> RequestHead:
    return RequestHead("GET", scheme, authority, path, [(b"X-To", b"one.host"), (b"x-to", b"two.host")])


def rewritten(matcher: PathMatcher, path: str, **action: object) -> str | None:
    rewrite = compile_path_rewrite(Route(RouteMatch(matcher), RouteAction("c", **action)))  # type: ignore[arg-type]
    return rewrite(head(path)) if rewrite else None


@pytest.mark.parametrize(
    "matcher, path, expected",
    [
        (PathMatcher("prefix", "/a"), "/a/b?q=1", "/r/b?q=1"),
        (PathMatcher("prefix", "/a/"), "/a/b", "/rb"),  # no slash is added at the seam
        (PathMatcher("prefix", "/A", case_sensitive=False), "/a/b", "/r/b"),
        (PathMatcher("path", "/a"), "/a?q", "/r?q"),
        (PathMatcher("path_separated_prefix", "/a"), "/a/b", "/r/b"),
        (PathMatcher("safe_regex", "/.*"), "/a/b?q", "/r?q"),  # a regex has matched the whole path
    ],
)
def test_prefix_rewrite_replaces_what_was_matched(matcher: PathMatcher, path: str, expected: str) -> None:
    assert rewritten(matcher, path, prefix_rewrite="/r") == expected


@pytest.mark.parametrize(
    "rewrite, path, expected",
    [
        (RegexRewrite("^/a/(.*)$", r"/\1"), "/a/b?/a/q", "/b?/a/q"),
        (RegexRewrite("x", "y"), "/a", "/a"),
        (RegexRewrite(".*", ""), "/a?q", "/a?q"),  # an empty path cannot be asked for
        (RegexRewrite("^/", ""), "/a?q", "/a?q"),  # nor one without its slash
    ],
)
def test_regex_rewrite_leaves_the_query(rewrite: RegexRewrite, path: str, expected: str) -> None:
    assert rewritten(PathMatcher("prefix", "/"), path, regex_rewrite=rewrite) == expected


def test_routes_without_rewrite_cost_nothing() -> None:
    assert rewritten(PathMatcher("prefix", "/"), "/") is None
    assert compile_path_rewrite(Route(RouteMatch(PathMatcher("prefix", "/")), DirectResponseAction(200))) is None
    assert compile_host_rewrite(None) is None


@pytest.mark.parametrize(
    "rewrite, hostname, expected",
    [
        (HostRewrite("literal", "l.host"), "e.host", "l.host"),
        (HostRewrite("auto"), "e.host", "e.host"),
        (HostRewrite("auto"), "", None),
        (HostRewrite("header", "X-To"), "", "one.host"),  # untrusted: only the first value
        (HostRewrite("header", "x-none"), "", None),
        (HostRewrite("path_regex", regex=RegexRewrite("^/(.+)/x$", r"\1.host")), "", "shop.host"),
    ],
)
def test_host_rewrites(rewrite: HostRewrite, hostname: str, expected: str | None) -> None:
    rewrite_host = compile_host_rewrite(rewrite)
    assert rewrite_host is not None
    assert rewrite_host(head("/shop/x?q"), hostname) == expected


PREFIX = PathMatcher("prefix", "/a")


@pytest.mark.parametrize(
    "redirect, authority, scheme, path, expected",
    [
        (RedirectAction(), "h", "http", "/a?q", "http://h/a?q"),
        (RedirectAction(https_redirect=True), "h:80", "http", "/a", "https://h/a"),  # the old scheme's port goes
        (RedirectAction(https_redirect=True), "h:8080", "http", "/a", "https://h:8080/a"),
        (RedirectAction(https_redirect=True), "h:443", "http", "/a", "https://h:443/a"),
        (RedirectAction(scheme_redirect="http"), "h:443", "https", "/a", "http://h/a"),
        (RedirectAction(scheme_redirect="http"), "h:80", "http", "/a", "http://h:80/a"),  # same scheme, same port
        (RedirectAction(port_redirect=99), "h:80", "http", "/a", "http://h:99/a"),
        (RedirectAction(port_redirect=99), "[::1]:80", "http", "/a", "http://[::1]:99/a"),
        (RedirectAction(port_redirect=99), "[::1]", "http", "/a", "http://[::1]:99/a"),
        (RedirectAction(host_redirect="n"), "h:80", "http", "/a", "http://n/a"),
        (RedirectAction(host_redirect="n", port_redirect=9), "h", "http", "/a", "http://n:9/a"),
        (RedirectAction(path_redirect="/to"), "h", "http", "/a?q", "http://h/to?q"),
        (RedirectAction(path_redirect="/to", strip_query=True), "h", "http", "/a?q", "http://h/to"),
        (RedirectAction(path_redirect="/to?own"), "h", "http", "/a?q", "http://h/to?own"),
        (RedirectAction(path_redirect="/to?own", strip_query=True), "h", "http", "/a?q", "http://h/to?own"),
        (RedirectAction(path_redirect="to"), "h", "http", "/a", "http://h/to"),
        (RedirectAction(prefix_rewrite="/r"), "h", "http", "/a/b?q", "http://h/r/b?q"),
        (RedirectAction(prefix_rewrite="/r", strip_query=True), "h", "http", "/a/b?q", "http://h/r/b"),
        (RedirectAction(prefix_rewrite=""), "h", "http", "/a/b", "http://h/a/b"),
        (RedirectAction(regex_rewrite=RegexRewrite("^/a/", "/z/")), "h", "http", "/a/b?q", "http://h/z/b?q"),
        (RedirectAction(strip_query=True), "h", "http", "/a?q", "http://h/a"),
    ],
)
def test_redirect_locations(redirect: RedirectAction, authority: str, scheme: str, path: str, expected: str) -> None:
    assert redirect_location(redirect, head(path, authority, scheme), RouteMatch(PREFIX)) == expected


def test_bad_regexes_are_refused_with_their_field() -> None:
    with pytest.raises(ResourceError, match=r"^regex_rewrite\.regex: "):
        rewritten(PREFIX, "/", regex_rewrite=RegexRewrite("(", ""))
    with pytest.raises(ResourceError, match=r"^host_rewrite_path_regex\.regex: "):
        compile_host_rewrite(HostRewrite("path_regex", regex=RegexRewrite("(", "")))
