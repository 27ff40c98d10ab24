"""Conditions of routes, one by one. Each row was also held against Envoy 1.40 by the differential tests."""

import pytest

from meshlib.model.matchers import (
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing.matchers import FractionTest, compile_match, parse_int64


def head(path: str = "/", headers: tuple[tuple[str, str], ...] = ()) -> RequestHead:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return RequestHead("GET", "http", "a.test:80", path, raw)


def holds(match: RouteMatch, request: RequestHead) -> bool:
    return all(predicate(request) for predicate in compile_match(match))


def header_holds(matcher: HeaderMatcher, *values: str, name: str = "X-A") -> bool:
    return holds(RouteMatch(PathMatcher("prefix", "/"), (matcher,)), head(headers=tuple((name, v) for v in values)))


@pytest.mark.parametrize(
    "matcher, path, expected",
    [
        (PathMatcher("path", "/a"), "/a", True),
        (PathMatcher("path", "/a"), "/a?q=1", True),
        (PathMatcher("path", "/a"), "/a#f", True),
        (PathMatcher("path", "/a"), "/a/", False),
        (PathMatcher("path", "/a"), "/A", False),
        (PathMatcher("path", "/a", case_sensitive=False), "/A", True),
        (PathMatcher("prefix", "/a"), "/ab", True),
        (PathMatcher("prefix", "/A", case_sensitive=False), "/ab", True),
        (PathMatcher("prefix", ""), "/", True),
        (PathMatcher("prefix", "/a?"), "/a?", False),
        (PathMatcher("path_separated_prefix", "/a"), "/a", True),
        (PathMatcher("path_separated_prefix", "/a"), "/a/b", True),
        (PathMatcher("path_separated_prefix", "/a"), "/a?b", True),
        (PathMatcher("path_separated_prefix", "/a"), "/ab", False),
        (PathMatcher("path_separated_prefix", "/a", case_sensitive=False), "/A/b", True),
        (PathMatcher("safe_regex", "/a/[0-9]+"), "/a/1?x", True),
        (PathMatcher("safe_regex", "/a"), "/a/b", False),
        (PathMatcher("safe_regex", "/a", case_sensitive=False), "/A", False),
        (PathMatcher("path", "/é"), "/é".encode().decode("latin-1"), True),
        (PathMatcher("path", "/É", case_sensitive=False), "/é".encode().decode("latin-1"), False),  # only A-Z folds
    ],
)
def test_paths(matcher: PathMatcher, path: str, expected: bool) -> None:
    assert holds(RouteMatch(matcher), head(path)) is expected


@pytest.mark.parametrize(
    "matcher, value, expected",
    [
        (StringMatcher("exact", "Ab"), "Ab", True),
        (StringMatcher("exact", "Ab"), "ab", False),
        (StringMatcher("exact", "Ab", ignore_case=True), "aB", True),
        (StringMatcher("prefix", "a"), "ab", True),
        (StringMatcher("suffix", "b"), "ab", True),
        (StringMatcher("suffix", "B", ignore_case=True), "ab", True),
        (StringMatcher("contains", "b"), "abc", True),
        (StringMatcher("contains", "B"), "abc", False),
        (StringMatcher("contains", "B", ignore_case=True), "abc", True),
        (StringMatcher("safe_regex", "a.c"), "abc", True),
        (StringMatcher("safe_regex", "A.C", ignore_case=True), "abc", False),
        (StringMatcher("exact", ""), "", True),
    ],
)
def test_strings(matcher: StringMatcher, value: str, expected: bool) -> None:
    assert header_holds(HeaderMatcher("x-a", matcher), value) is expected


@pytest.mark.parametrize(
    "invert, treat_missing, values, expected",
    [
        (False, False, (), False),
        (True, False, (), False),  # a missing header fails even the inverted test
        (False, True, (), False),
        (True, True, (), True),
        (False, False, ("1",), True),
        (True, False, ("1",), False),
        (True, False, ("2",), True),
        (False, False, ("2", "1"), True),  # one of several is enough
        (True, False, ("2", "1"), False),  # and spoils the inverted test
        (False, False, ("1,2",), False),
        (True, False, ("",), True),
    ],
)
def test_header_presence_and_inversion(
    invert: bool, treat_missing: bool, values: tuple[str, ...], expected: bool
) -> None:
    matcher = HeaderMatcher("x-a", StringMatcher("exact", "1"), invert, treat_missing)
    assert header_holds(matcher, *values) is expected


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("invert", [True, False])
@pytest.mark.parametrize("treat_missing", [True, False])
@pytest.mark.parametrize("values", [(), ("",), ("v",)])
def test_present(present: bool, invert: bool, treat_missing: bool, values: tuple[str, ...]) -> None:
    here = bool(values) or treat_missing  # one that counts as empty counts as there
    matcher = HeaderMatcher("x-a", Present(present), invert, treat_missing)
    assert header_holds(matcher, *values) is ((here == present) != invert)


@pytest.mark.parametrize(
    "value, expected",
    [("0", True), ("9", True), ("10", False), ("-1", False), ("x", False), ("", False), ("1_0", False)],
)
def test_ranges_are_half_open(value: str, expected: bool) -> None:
    assert header_holds(HeaderMatcher("x-a", Int64Range(0, 10)), value) is expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("12", 12),
        ("-5", -5),
        ("+7", 7),
        (" 3 ", 3),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(2**63)),
        ("٣", None),
        ("1_0", None),
        ("0x1", None),
        ("", None),
        ("-", None),
        ("1" * 10_000, None),
    ],
)
def test_integers_are_read_as_envoy_does(text: str, expected: int | None) -> None:
    assert parse_int64(text) == expected


@pytest.mark.parametrize(
    "name, value",
    [(":method", "GET"), (":authority", "a.test:80"), ("host", "a.test:80"), (":path", "/?q"), (":scheme", "http")],
)
def test_pseudo_headers(name: str, value: str) -> None:
    match = RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher(name, StringMatcher("exact", value)),))
    assert holds(match, head("/?q"))


@pytest.mark.parametrize(
    "query, test, expected",
    [
        ("?x=1", StringMatcher("exact", "1"), True),
        ("?x=1&x=2", StringMatcher("exact", "2"), False),  # the first occurrence counts
        ("?y=1", StringMatcher("exact", "1"), False),
        ("?x=%31", StringMatcher("exact", "1"), False),  # nothing is decoded
        ("?x", StringMatcher("exact", ""), True),
        ("?x=a=b", StringMatcher("exact", "a=b"), True),
        ("?X=1", StringMatcher("exact", "1"), False),
        ("?xy=1", Present(), False),
        ("?x", Present(), True),
        ("", Present(), False),
        ("", Present(present=False), True),
        ("?x=1", Present(present=False), False),
        ("?&x=1&", StringMatcher("exact", "1"), True),
    ],
)
def test_query_parameters(query: str, test: StringMatcher | Present, expected: bool) -> None:
    match = RouteMatch(PathMatcher("prefix", "/"), query_parameters=(QueryParameterMatcher("x", test),))
    assert holds(match, head("/" + query)) is expected


@pytest.mark.parametrize(
    "content_type, expected",
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc-web", False),
        ("application/grpc;x=1", False),
        ("text/plain", False),
        (None, False),
    ],
)
def test_grpc(content_type: str | None, expected: bool) -> None:
    headers = () if content_type is None else (("Content-Type", content_type),)
    assert holds(RouteMatch(PathMatcher("prefix", "/"), grpc=True), head(headers=headers)) is expected


@pytest.mark.parametrize(
    "sample, percent, expected",
    [
        (0.0, FractionalPercent(0), False),
        (0.999_999, FractionalPercent(100), True),
        (0.049, FractionalPercent(5), True),
        (0.05, FractionalPercent(5), False),
        (0.5, FractionalPercent(200), True),
    ],
)
def test_fractions(sample: float, percent: FractionalPercent, expected: bool) -> None:
    assert FractionTest(percent)(sample) is expected


def test_conditions_describe_themselves() -> None:
    match = RouteMatch(
        PathMatcher("prefix", "/a", case_sensitive=False),
        (
            HeaderMatcher(
                "x-a", StringMatcher("exact", "1", ignore_case=True), invert=True, treat_missing_as_empty=True
            ),
            HeaderMatcher("x-b", Int64Range(0, 5)),
            HeaderMatcher("x-c", Present(present=False)),
        ),
        (QueryParameterMatcher("q", StringMatcher("prefix", "v")), QueryParameterMatcher("r", Present())),
        grpc=True,
    )
    assert [predicate.describe() for predicate in compile_match(match)] == [
        "prefix '/a' (any case)",
        "gRPC content type",
        "not header x-a exact '1' (any case) (missing counts as empty)",
        "header x-b in [0, 5)",
        "header x-c absent",
        "query parameter q prefix 'v'",
        "query parameter r present",
    ]


def test_a_bad_regex_is_refused_with_its_field() -> None:
    bad = HeaderMatcher("x-a", StringMatcher("safe_regex", "("))
    with pytest.raises(ResourceError) as refused:
        compile_match(RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher("x-b", Present()), bad)))
    assert refused.value.path == "headers[1].regex"
