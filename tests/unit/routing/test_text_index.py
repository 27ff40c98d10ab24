"""The parts of the route index, and what bounds their cost."""

import sys

import pytest

from meshlib.model.matchers import HeaderMatcher, PathMatcher, RouteMatch, StringMatcher
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing import regex_set
from meshlib.routing.indexed import indexed
from meshlib.routing.regex_set import RegexSet
from meshlib.routing.route_index import FEW, RouteIndex

MANY = 1000


def head(path: str = "/", *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("GET", "http", "h", path, headers)


def index(*matches: RouteMatch) -> RouteIndex:
    return RouteIndex([indexed(match) for match in matches])


def prefix(value: str, *headers: HeaderMatcher) -> RouteMatch:
    return RouteMatch(PathMatcher("prefix", value), headers)


def x_user(kind: str, value: str, **more: bool) -> HeaderMatcher:
    return HeaderMatcher("x-user", StringMatcher(kind, value), **more)  # type: ignore[arg-type]


def test_what_comes_after_a_route_that_takes_all_is_no_candidate() -> None:
    found = index(prefix("/a/b"), prefix("/a"), prefix("/a", x_user("exact", "1")), prefix("/"), prefix("/a/b"))
    assert list(found.candidates(head("/a/b/c"))) == [0]
    assert list(found.candidates(head("/a/c"))) == [1]
    assert list(found.candidates(head("/c"))) == [3]


def test_a_separated_prefix_is_looked_up_whole() -> None:
    found = index(RouteMatch(PathMatcher("path_separated_prefix", "/a")), prefix("/"))
    assert [list(found.candidates(head(path))) for path in ("/a", "/a/", "/a?x", "/ab")] == [[0], [0], [0], [1]]


@pytest.mark.parametrize("kind", ["exact", "prefix", "suffix", "contains", "safe_regex"])
def test_routes_of_one_path_are_told_apart_by_a_header(kind: str) -> None:
    matches = [prefix("/", x_user(kind, f"user-{number:04}")) for number in range(MANY)]
    found = index(*matches, prefix("/"))
    assert list(found.candidates(head("/", (b"x-user", b"user-0500")))) == [500, MANY]
    assert list(found.candidates(head("/", (b"x-user", b"user-0500"), (b"X-User", b"user-0007")))) == [7, 500, MANY]
    assert list(found.candidates(head())) == [MANY]


@pytest.mark.parametrize("more", [{"invert": True}, {"treat_missing_as_empty": True}])
def test_conditions_that_hold_without_the_header_are_tried_in_turn(more: dict[str, bool]) -> None:
    value = "" if "treat_missing_as_empty" in more else "1"
    found = index(*[prefix("/", x_user("prefix", value, **more)) for _ in range(MANY)])
    assert len(found.candidates(head())) == MANY


def test_a_few_routes_are_not_worth_looking_up() -> None:
    found = index(*[prefix("/", x_user("exact", str(number))) for number in range(FEW)])
    assert len(found.candidates(head())) == FEW


def test_a_set_that_is_too_large_is_two(monkeypatch: pytest.MonkeyPatch) -> None:
    original = regex_set.re2_set
    monkeypatch.setattr(regex_set, "re2_set", lambda patterns: original(patterns) if len(patterns) < 3 else None)
    found = RegexSet([f"{number}.*" for number in range(10)])
    assert [found.find(f"{number}x") for number in range(10)] == [[number] for number in range(10)]


def test_a_search_that_runs_out_of_memory_is_no_search_that_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """RE2 tells both by an empty list; a pattern that always matches tells them apart."""

    class Exhausted:
        def Match(self, text: bytes) -> list[int]:  # noqa: N802  # RE2's name
            return []

    monkeypatch.setattr(regex_set, "re2_set", lambda patterns: Exhausted())
    assert RegexSet(["a+", "b", "a.*"]).find("aa") == [0, 2]


def test_memory_enough_for_thousands_of_patterns() -> None:
    found = RegexSet([f".*/service-{number}/[^/]+/(v1|v2)(/.*)?" for number in range(3000)])
    assert found.find("/x/y/service-2718/a/v2/b") == [2718]
    assert found.find("/x/y/service-3000/a/v2") == []


def test_without_re2_parts_of_a_header_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    found = index(*[prefix("/", x_user("contains", f"u{number}")) for number in range(MANY)])
    assert len(found.candidates(head("/", (b"x-user", b"u5")))) == MANY
    with pytest.raises(ResourceError, match="google-re2"):
        index(RouteMatch(PathMatcher("safe_regex", "/a.*")))
