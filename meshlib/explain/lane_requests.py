"""Requests that match a lane and requests that do not, made from what the lane asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from meshlib.model.lanes import Lane
from meshlib.model.matchers import CookieMatcher, HeaderMatcher, PathMatcher, QueryParameterMatcher, RouteMatch
from meshlib.model.request import RequestHead
from meshlib.model.strings import StringMatcher

Asked = HeaderMatcher | CookieMatcher | QueryParameterMatcher

_EVERYTHING = RouteMatch(PathMatcher("prefix", "/"))
_OTHER = "meshlib-another"
_PATHS = frozenset(("path", "prefix", "path_separated_prefix"))
_IN_A_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")
_AS_IT_IS = re.compile(r"[\w.~-]+", re.ASCII)  # a cookie or a parameter that nobody would write another way


def why_not_drawn(lane: Lane) -> str:
    """Why no requests can be made that match a lane, and others that do not; empty where they can."""
    if any(match == _EVERYTHING for match in lane.matches):
        return "every request matches"
    return "" if all(_is_simple(match) for match in lane.matches) else "the match is not simple"


def half_matching(lane: Lane, requests: int) -> Iterator[tuple[RequestHead, bool]]:
    """As many requests, and whether they match: each second one does, and each fourth has another value of the same."""
    matches = lane.matches
    for number in range(requests):
        match = matches[number // 4 % len(matches)]
        if number % 2 == 0:
            yield _head(match, _asked(match), None), True
        else:
            yield _head(match, _asked(match) if number % 4 == 1 else (), _OTHER), False


def _is_simple(match: RouteMatch) -> bool:
    """Whether it asks for exact values of headers, cookies and parameters, beside a path, and for nothing else."""
    asked = _asked(match)
    nothing_else = match == RouteMatch(
        match.path, match.headers, match.query_parameters, cookies=match.cookies
    ) and match.path.value.startswith("/")
    return bool(asked) and nothing_else and match.path.kind in _PATHS and all(_is_exact(each) for each in asked)


def _asked(match: RouteMatch) -> Sequence[Asked]:
    return (*match.headers, *match.cookies, *match.query_parameters)


def _is_exact(asked: Asked) -> bool:
    wanted = asked.match
    if not isinstance(wanted, StringMatcher) or wanted.kind != "exact" or wanted.value.lower() == _OTHER:
        return False
    if isinstance(asked, HeaderMatcher):
        plain = not (asked.invert or asked.treat_missing_as_empty or asked.name in {"host", "cookie"})
        return plain and not asked.name.startswith(":") and bool(_IN_A_HEADER.fullmatch(wanted.value))
    inverted = isinstance(asked, CookieMatcher) and asked.invert
    return not inverted and bool(_AS_IT_IS.fullmatch(asked.name) and _AS_IT_IS.fullmatch(wanted.value))


def _head(match: RouteMatch, asked: Sequence[Asked], instead: str | None) -> RequestHead:
    """A request with what is asked for, or with another value of it all."""
    headers: list[tuple[bytes, bytes]] = []
    query, cookies = [], []
    for each in asked:
        value = instead or (each.match.value if isinstance(each.match, StringMatcher) else "")
        if isinstance(each, HeaderMatcher):
            headers.append((each.name.encode("latin-1"), value.encode("latin-1")))
        elif isinstance(each, CookieMatcher):
            cookies.append(f"{each.name}={value}")
        else:
            query.append(f"{each.name}={value}")
    if cookies:
        headers.append((b"cookie", "; ".join(cookies).encode("latin-1")))
    target = match.path.value + ("?" + "&".join(query) if query else "")
    return RequestHead("GET", "http", "traffic", target, headers)
