"""Conditions on what a call carries beside its request, cookies, and virtual hosts that are only for https."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from meshlib.model.context_matchers import (
    AnyOf,
    AnyValue,
    DoubleMatch,
    FilterStateMatcher,
    IpRanges,
    ListHas,
    MetadataMatcher,
    TlsContextMatch,
)
from meshlib.model.matchers import CookieMatcher, PathMatcher, RouteMatch
from meshlib.model.metadata import EMPTY_METADATA, Metadata
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteConfiguration, VirtualHost
from meshlib.model.strings import StringMatcher
from meshlib.routing.matchers import compile_match
from meshlib.routing.router import RouteTable

ALL = PathMatcher("prefix", "/")
NO_STATE: Mapping[str, str] = {}


class Call(RequestHead):
    """A head that carries metadata."""

    __slots__ = ("filter_state", "metadata")

    def __init__(
        self, metadata: Metadata = EMPTY_METADATA, state: Mapping[str, str] = NO_STATE, path: str = "/", *headers: Any
    ) -> None:
        super().__init__("GET", "http", "h", path, headers)
        self.metadata = metadata
        self.filter_state = state


def holds(match: RouteMatch, head: RequestHead) -> bool:
    return all(predicate(head) for predicate in compile_match(match))


def metadata(value: Any) -> Call:
    return Call(Metadata.of({"f": {"a": {"b": value}}}))


@pytest.mark.parametrize(
    "matcher, fits, does_not",
    [
        (StringMatcher("prefix", "x"), ["x", "xy"], ["yx", 1, None, True]),
        (True, [True], [False, "true", 1]),
        (False, [False], [True, 0, None]),
        (None, [None], [False, 0, ""]),
        (DoubleMatch(1.5), [1.5], [1, "1.5"]),
        (DoubleMatch(1, 3), [1, 2.9], [3, 0.9, "2"]),
        (AnyValue(), [0, None, "", [], False], []),
        (AnyValue(present=False), [], [0, "x"]),
        (ListHas(StringMatcher("exact", "x")), [["y", "x"]], [["y"], [], "x"]),
        (AnyOf((True, StringMatcher("exact", "x"))), [True, "x"], [False, "y"]),
    ],
)
def test_dynamic_metadata(matcher: Any, fits: list[Any], does_not: list[Any]) -> None:
    match = RouteMatch(ALL, dynamic_metadata=(MetadataMatcher("f", ("a", "b"), matcher),))
    inverted = RouteMatch(ALL, dynamic_metadata=(MetadataMatcher("f", ("a", "b"), matcher, invert=True),))
    for value in (*fits, *does_not):
        assert holds(match, metadata(value)) is any(value is fit for fit in fits), value
        assert holds(inverted, metadata(value)) is not holds(match, metadata(value))


@pytest.mark.parametrize("matcher", [None, True, AnyValue(), StringMatcher("prefix", "")])
def test_without_the_metadata_only_inverted_matches(matcher: Any) -> None:
    for head in (RequestHead("GET", "http", "h", "/"), Call(Metadata.of({"f": {"a": "text"}}))):
        for invert in (False, True):
            found = MetadataMatcher("f", ("a", "b"), matcher, invert=invert)
            assert holds(RouteMatch(ALL, dynamic_metadata=(found,)), head) is invert


def test_filter_state() -> None:
    text = RouteMatch(ALL, filter_state=(FilterStateMatcher("k", StringMatcher("exact", "v")),))
    assert [holds(text, Call(state=state)) for state in ({"k": "v"}, {"k": "w"}, {})] == [True, False, False]
    near = RouteMatch(ALL, filter_state=(FilterStateMatcher("ip", IpRanges(("10.0.0.0/8", "fd00::/8"))),))
    seen = [holds(near, Call(state={"ip": ip})) for ip in ("10.1.2.3", "fd00::1", "11.0.0.1", "no address")]
    assert seen == [True, True, False, False]
    far = RouteMatch(ALL, filter_state=(FilterStateMatcher("ip", IpRanges(("10.0.0.0/8",), invert=True)),))
    assert [holds(far, Call(state={"ip": ip})) for ip in ("10.1.2.3", "11.0.0.1")] == [False, True]
    with pytest.raises(ResourceError, match="address_match"):
        compile_match(RouteMatch(ALL, filter_state=(FilterStateMatcher("ip", IpRanges(("nowhere",))),)))


@pytest.mark.parametrize(
    "presented, validated, matches",
    [(None, None, True), (False, None, True), (True, None, False), (None, False, True), (None, True, False)],
)
def test_a_caller_in_the_process_presents_no_certificate(
    presented: bool | None, validated: bool | None, matches: bool
) -> None:
    match = RouteMatch(ALL, tls_context=TlsContextMatch(presented, validated))
    assert holds(match, RequestHead("GET", "http", "h", "/")) is matches


@pytest.mark.parametrize(
    "cookies, matches, inverted",
    [
        ([b"a=1"], True, False),
        ([b'b=2; a="1"'], True, False),
        ([b"a=2; a=1"], False, True),
        ([b"a=2", b"a=1"], False, True),
        ([b"A=1"], False, True),
        ([], False, True),
    ],
)
def test_cookies(cookies: list[bytes], matches: bool, inverted: bool) -> None:
    head = Call(EMPTY_METADATA, NO_STATE, "/", *((b"cookie", cookie) for cookie in cookies))
    one = StringMatcher("exact", "1")
    assert holds(RouteMatch(ALL, cookies=(CookieMatcher("a", one),)), head) is matches
    assert holds(RouteMatch(ALL, cookies=(CookieMatcher("a", one, invert=True),)), head) is inverted


def test_connect_takes_no_other_method() -> None:
    match = RouteMatch(PathMatcher("connect_matcher", ""))
    assert [holds(match, RequestHead(method, "http", "h", "/x")) for method in ("CONNECT", "GET")] == [True, False]


def test_conditions_in_words() -> None:
    match = RouteMatch(
        PathMatcher("connect_matcher", ""),
        cookies=(CookieMatcher("a", StringMatcher("exact", "1"), invert=True),),
        tls_context=TlsContextMatch(True),
        dynamic_metadata=(MetadataMatcher("f", ("a", "b"), None, invert=True),),
        filter_state=(
            FilterStateMatcher("k", StringMatcher("prefix", "v")),
            FilterStateMatcher("ip", IpRanges(("10.0.0.0/8",), invert=True)),
        ),
    )
    assert [predicate.describe() for predicate in compile_match(match)] == [
        "connect_matcher",
        "method CONNECT",
        "not cookie a exact '1'",
        "tls_context: the caller is inside the process and presents no certificate",
        "not dynamic metadata f/a/b",
        "filter state k prefix 'v'",
        "filter state ip not in 10.0.0.0/8",
    ]


@pytest.mark.parametrize("require_tls", ["ALL", "EXTERNAL_ONLY"])
def test_a_virtual_host_that_is_only_for_https(require_tls: Any) -> None:
    routes = (Route(RouteMatch(ALL), DirectResponseAction(200)),)
    host = VirtualHost("v", ("*",), routes, require_tls=require_tls)
    table = RouteTable(RouteConfiguration("r", (host,))).virtual_hosts[0]
    for scheme, headers, index in (
        ("http", [], 1),
        ("https", [], 0),
        ("http", [(b"x-forwarded-proto", b"https")], 0),
        ("https", [(b"x-forwarded-proto", b"http")], 1),
    ):
        head = RequestHead("GET", scheme, "h:80", "/", headers)
        assert table.match(head, random.Random(1)) == index
        trial = table.trace(head, random.Random(1))[-1]
        assert (trial.index, trial.matched) == (index, True)
