"""Thousands of tables of dozens of routes: the index finds what trying every route in turn finds."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differential.routing_generate_matches import COOKIES, PATHS, QUERIES, REGEXES, TEMPLATES, VALUES
from meshlib.model.matchers import (
    CookieMatcher,
    FractionalPercent,
    HeaderMatcher,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, VirtualHost
from meshlib.routing import route_index
from meshlib.routing.prefix_trie import PrefixTrie
from meshlib.routing.regex import compile_regex
from meshlib.routing.regex_set import RegexSet
from meshlib.routing.router import VirtualHostTable

ANSWER = DirectResponseAction(200)
TABLES = 300
REQUESTS = 40
SEEDS = st.integers(0, 2**32)
DEEP = ("/a/b/c/d", "/a/b/", "/a/b/1", "/a//b", "/a/b/c/", "/")


def string(rng: random.Random) -> StringMatcher:
    kind = rng.choice(("exact", "exact", "prefix", "suffix", "contains", "safe_regex"))
    if kind == "safe_regex":
        return StringMatcher("safe_regex", rng.choice(REGEXES))
    return StringMatcher(kind, rng.choice(VALUES), rng.random() < 0.2)  # type: ignore[arg-type]


def path(rng: random.Random) -> PathMatcher:
    kind = rng.choice(("path", "prefix", "prefix", "path_separated_prefix", "safe_regex", "uri_template"))
    if kind == "safe_regex":
        return PathMatcher("safe_regex", rng.choice(REGEXES))
    if kind == "uri_template":
        return PathMatcher("uri_template", rng.choice(tuple(TEMPLATES)))
    value = rng.choice((*PATHS, *DEEP, ""))
    return PathMatcher(kind, value, rng.random() < 0.8)  # type: ignore[arg-type]


def match(rng: random.Random, paths: Sequence[PathMatcher]) -> RouteMatch:
    headers = tuple(
        HeaderMatcher(
            rng.choice(("x-a", "x-a", "x-b", ":method")),
            Present(rng.random() < 0.5) if rng.random() < 0.1 else string(rng),
            rng.random() < 0.1,
            rng.random() < 0.2,
        )
        for _ in range(rng.choice((0, 0, 1, 1, 2)))
    )
    return RouteMatch(
        rng.choice(paths),
        headers,
        tuple(QueryParameterMatcher("x", string(rng)) for _ in range(rng.random() < 0.2)),
        runtime_fraction=FractionalPercent(rng.choice((0, 100))) if rng.random() < 0.1 else None,
        cookies=tuple(CookieMatcher("a", string(rng), rng.random() < 0.2) for _ in range(rng.random() < 0.2)),
    )


def request(rng: random.Random) -> RequestHead:
    headers = [(name, rng.choice(VALUES).encode()) for name in (b"x-a", b"X-A", b"x-b", b"x-c") if rng.random() < 0.5]
    if rng.random() < 0.3:
        headers.append((b"cookie", rng.choice(COOKIES).encode()))
    target = rng.choice((*PATHS, *DEEP)) + rng.choice((*QUERIES, ""))
    return RequestHead(rng.choice(("GET", "POST")), "http", "h", target, headers)


@pytest.mark.parametrize("few", [1, route_index.FEW], ids=["looked up wherever it can be", "as configured"])
def test_the_index_finds_what_trying_every_route_finds(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_index, "FEW", few)

    @settings(max_examples=TABLES, deadline=None)
    @given(SEEDS)
    def same(seed: int) -> None:
        rng = random.Random(seed)
        paths = [path(rng) for _ in range(rng.choice((1, 3, 30)))]  # few paths: many routes of one
        routes = tuple(Route(match(rng, paths), ANSWER) for _ in range(rng.choice((3, 20, 60))))
        table = VirtualHostTable(VirtualHost("h", ("*",), routes))
        for _ in range(REQUESTS):
            head = request(rng)
            tried = table.trace(head, random.Random(1))
            expected = tried[-1].index if tried and tried[-1].matched else -1
            assert table.match(head, random.Random(1)) == expected, (head, head.headers)

    same()


@given(st.lists(st.text("ab/", max_size=6), unique=True), st.lists(st.text("ab/", max_size=9), max_size=20))
def test_the_trie_finds_the_longest_prefix(prefixes: list[str], texts: list[str]) -> None:
    trie = PrefixTrie(prefixes, lambda key, above: (key, *above), ())
    for text in (*texts, *prefixes):
        assert trie.find(text) == tuple(sorted((p for p in prefixes if text.startswith(p)), key=len, reverse=True))


@given(st.integers(1, 400), st.integers(0, 400), st.sampled_from(("", "b", "a")))
def test_the_trie_climbs_out_of_deep_nests(depth: int, length: int, tail: str) -> None:
    trie = PrefixTrie(["a" * size for size in range(1, depth + 1)], lambda key, above: len(key), 0)
    text = "a" * length + tail
    assert trie.find(text) == min(depth, len(text) - len(text.lstrip("a")))


@given(
    st.lists(st.sampled_from((*REGEXES, "(?i)AB", r"\\C*b", ".")), min_size=1),
    st.sampled_from((*VALUES, *PATHS, "ü", "\xff")),
)
def test_a_set_finds_what_every_pattern_alone_finds(patterns: list[str], text: str) -> None:
    expected = [place for place, pattern in enumerate(patterns) if compile_regex(pattern).fullmatch(text)]
    assert sorted(RegexSet(patterns).find(text)) == expected
