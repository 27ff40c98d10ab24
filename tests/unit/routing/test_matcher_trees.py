"""The unified matcher: lists, maps, predicates, what follows where nothing does."""

import random

import pytest

from meshlib.model.matcher_tree import (
    AllOf,
    FieldMatcher,
    Input,
    Matcher,
    MatcherList,
    MatcherTree,
    Not,
    OneOf,
    OnMatch,
    Predicate,
    SinglePredicate,
)
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.strings import StringMatcher
from meshlib.routing.matcher_tree import compile_matcher
from meshlib.routing.router import RouteTable


def head(path: str = "/", *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("GET", "http", "h", path, headers)


def x(value: str, kind: str = "exact") -> SinglePredicate:
    return SinglePredicate(Input("header", "x"), StringMatcher(kind, value))  # type: ignore[arg-type]


def lines(*found: tuple[Predicate, str | Matcher[str]], otherwise: str | None = None) -> MatcherList[str]:
    rest = None if otherwise is None else OnMatch(otherwise)
    return MatcherList(tuple(FieldMatcher(predicate, OnMatch(then)) for predicate, then in found), rest)


def found(matcher: Matcher[str], request: RequestHead) -> str | None:
    return compile_matcher(matcher).find(request)


def test_the_first_line_that_holds_decides() -> None:
    matcher = lines((x("1"), "one"), (x("", "prefix"), "any"), otherwise="none")
    assert [found(matcher, head("/", (b"X", value))) for value in (b"1", b"2")] == ["one", "any"]
    assert found(matcher, head()) == "none"
    assert found(lines((x("1"), "one")), head()) is None


def test_predicates() -> None:
    both = AllOf((x("a", "prefix"), Not(x("z", "suffix"))))
    matcher = lines((both, "both"), (OneOf((x("b"), x("c"))), "either"), (Not(x("d")), "not"))
    seen = [found(matcher, head("/", (b"x", value))) for value in (b"ab", b"az", b"b", b"c", b"d")]
    assert seen == ["both", "not", "either", "either", None]
    assert found(matcher, head()) == "not"  # a header that is not there is not `d`


def test_values_of_one_header_are_joined() -> None:
    assert found(lines((x("a,b"), "joined")), head("/", (b"x", b"a"), (b"x", b"b"))) == "joined"


def tree(kind: str, **entries: str | Matcher[str]) -> MatcherTree[str]:
    found = tuple((key.replace("_", "/"), OnMatch(then)) for key, then in entries.items())
    return MatcherTree(Input("header", ":path"), kind, found, OnMatch("none"))  # type: ignore[arg-type]


def test_maps() -> None:
    exact = tree("exact_match_map", _a="a", _b="b")
    assert [found(exact, head(path)) for path in ("/a", "/b", "/a/", "/")] == ["a", "b", "none", "none"]
    prefixes = tree("prefix_match_map", _="root", _a="a", _a_b="ab")
    assert [found(prefixes, head(path)) for path in ("/a/b/c", "/a/c", "/c", "/a/b?q")] == ["ab", "a", "root", "ab"]


def test_a_matcher_that_leads_nowhere_is_no_match() -> None:
    """Then the next line is tried, the next shorter prefix, and at last `on_no_match`, as in Envoy 1.40."""
    nowhere = lines((x("never"), "never"))
    assert found(lines((Not(x("1")), nowhere), (Not(x("2")), "next")), head()) == "next"
    assert found(tree("prefix_match_map", _a="shorter", _a_b=nowhere), head("/a/b")) == "shorter"
    assert found(tree("exact_match_map", _a=nowhere), head("/a")) == "none"


def test_keep_matching_notes_a_match_and_goes_on() -> None:
    kept = FieldMatcher(Not(x("1")), OnMatch("noted", keep_matching=True))
    inner = FieldMatcher(Not(x("1")), OnMatch(lines((Not(x("1")), "inner")), keep_matching=True))
    assert found(MatcherList((kept, inner, FieldMatcher(Not(x("2")), OnMatch("last")))), head()) == "last"
    assert found(MatcherList((kept,), OnMatch("none")), head()) == "none"


def test_inputs() -> None:
    class Known(RequestHead):
        filter_state = {"k": "v"}  # noqa: RUF012  # as a slot of a real one

    query = lines((SinglePredicate(Input("query_parameter", "q"), StringMatcher("exact", "1")), "query"))
    assert [found(query, head(path)) for path in ("/?q=1", "/?q=2&q=1", "/")] == ["query", None, None]
    state = lines((SinglePredicate(Input("filter_state", "k"), StringMatcher("exact", "v")), "state"))
    assert found(state, Known("GET", "http", "h", "/")) == "state"
    assert found(state, head()) is None


def test_every_action_is_told() -> None:
    matcher = lines((x("1"), tree("exact_match_map", _a="a", _b="b")), otherwise="c")
    assert compile_matcher(matcher).actions == {"a", "b", "c", "none"}


def test_the_routes_of_an_action_are_tried_in_its_own_order() -> None:
    paths = (PathMatcher("prefix", "/a"), PathMatcher("prefix", "/"), PathMatcher("path", "/a/b"))
    host = VirtualHost(
        "host",
        ("*",),
        tuple(Route(RouteMatch(path), RouteAction("up")) for path in paths),
        matcher=MatcherList((FieldMatcher(x("1"), OnMatch((2, 1, 0))),), OnMatch((1, 2))),
    )
    table = RouteTable(RouteConfiguration("routes", (host,))).virtual_host("h")
    assert table is not None
    one, rng = (b"x", b"1"), random.Random(1)
    asked = [head("/a/b", one), head("/a", one), head("/a/b")]
    assert [table.match(request, rng) for request in asked] == [2, 1, 1]
    assert [table.trace(request, rng)[-1].index for request in asked] == [2, 1, 1]


def test_a_regular_expression_that_cannot_be_compiled_is_refused_with_its_place() -> None:
    with pytest.raises(ResourceError, match=r"matcher_list.matchers\[0\].*\("):
        compile_matcher(lines((x("(", "safe_regex"), "a")))
