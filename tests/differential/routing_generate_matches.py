"""Strategies for what routes match, and for what requests say so that they have a chance to."""

import re
from typing import TypeVar

from differential import draws as st
from meshlib.model.context_matchers import AnyValue, FilterStateMatcher, MetadataMatcher, TlsContextMatch
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
from meshlib.model.matchers import (
    CookieMatcher,
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RouteMatch,
    StringMatcher,
)

PATHS = ("/", "/a", "/A", "/a/", "/a/b", "/ab", "/b/1", "/b/22", "/a/b/c", "/aB")
QUERIES = ("", "?", "?x=1", "?x=", "?x", "?x=a&x=b", "?y=2&x=1", "?x=%31", "?X=1", "?&x=1&", "?x=1=2", "?y=?x=1")
HEADER_NAMES = ("x-a", "x-b", "content-type", ":method", ":path", ":authority", "host", "x-missing")
VALUES = (
    "1",
    "a",
    "b",
    "A",
    "ab",
    "10",
    "-5",
    "+7",
    "a,b",
    "x y",
    "9223372036854775808",
    "1_0",
    "aB",
    "GET",
    "/a",
    "a.test",
)
REGEXES = ("a.*", "[0-9]+", "(a|b)", "/a(/.*)?", "/b/([0-9])[0-9]*", ".*", "A|a,b", "/[^/]+", "x?")
TEMPLATES = {  # and what each captures
    "/a/{x}": "/{x}/r",
    "/{x}/{y}": "/{y}/{x}",
    "/{x=b/*}": "/r/{x}",
    "/a/{x}/**": "/r{x}",
    "/{x=**}b": "/{x}",
    "/a{x}": "/{x}{x}",
    "/b/*": "/r",
    "/**": "/r/",
    "/a*": "/r",
}
COOKIES = ("a=1", "b=a; a=b", "a=A; a=1", 'a="ab"; b=', "a", "a=; b=10", "b=1;a=a ;", "A=1")
RUNTIME = {"half.on": 100, "half.off": 0, "half.share": {"numerator": 10_000, "denominator": "TEN_THOUSAND"}}
"""Runtime keys that Envoy and meshlib are given."""
CONTENT_TYPES = ("application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc;x=1", "text/a")

T = TypeVar("T")
N = TypeVar("N")

strings = st.one_of(
    st.builds(
        StringMatcher,
        st.sampled_from(("exact", "prefix", "suffix", "contains")),
        st.sampled_from(VALUES),
        st.booleans(),
    ),
    st.builds(StringMatcher, st.just("safe_regex"), st.sampled_from(REGEXES)),
)
header_matchers = st.builds(
    HeaderMatcher,
    st.sampled_from(HEADER_NAMES),
    st.one_of(
        strings,
        st.builds(Present, st.booleans()),
        st.sampled_from((Int64Range(0, 11), Int64Range(-5, 0), Int64Range(2**63 - 2, 2**63 - 1))),
    ),
    st.booleans(),
    st.booleans(),
)
query_matchers = st.builds(
    QueryParameterMatcher, st.sampled_from(("x", "y", "X")), st.one_of(strings, st.builds(Present, st.booleans()))
)
paths = st.one_of(
    st.builds(PathMatcher, st.just("path"), st.sampled_from(PATHS), st.booleans()),
    st.builds(PathMatcher, st.just("prefix"), st.sampled_from(("", *PATHS)), st.booleans()),
    st.builds(
        PathMatcher,
        st.just("path_separated_prefix"),
        st.sampled_from([path for path in PATHS if not path.endswith("/")]),
        st.booleans(),
    ),
    st.builds(PathMatcher, st.just("safe_regex"), st.sampled_from(REGEXES)),
    st.builds(PathMatcher, st.just("uri_template"), st.sampled_from(tuple(TEMPLATES))),
)
cookie_matchers = st.builds(CookieMatcher, st.sampled_from(("a", "b")), strings, st.booleans())
fractions = st.builds(
    FractionalPercent, st.sampled_from((0, 100, 100)), st.just(100), st.sampled_from(("", "", *RUNTIME, "missing"))
)
metadata_matchers = st.builds(
    MetadataMatcher,
    st.sampled_from(("meshlib", "envoy.lb")),
    st.just(("a", "b")),
    st.one_of(st.sampled_from((None, True, AnyValue(), AnyValue(present=False))), strings),
    st.booleans(),
)
state_matchers = st.builds(FilterStateMatcher, st.just("meshlib.key"), strings)
tls_matches = st.builds(TlsContextMatch, st.sampled_from((None, False, True)), st.sampled_from((None, False)))


def seldom(strategy: st.Strategy[T], nothing: N, one_in: int = 16) -> st.Strategy[T | N]:
    return st.sampled_from(range(one_in)).flatmap(lambda n: strategy if n == one_in - 1 else st.just(nothing))


matches = st.builds(
    RouteMatch,
    paths,
    seldom(st.one_of(st.tuples(header_matchers), st.tuples(header_matchers, header_matchers)), (), 3),
    seldom(st.tuples(query_matchers), (), 5),
    seldom(st.just(True), nothing=False),
    seldom(st.one_of(fractions, st.just(FractionalPercent(1_000_000, 1_000_000))), None, 8),
    seldom(st.tuples(cookie_matchers), (), 8),
    seldom(tls_matches, None),
    seldom(st.tuples(metadata_matchers), ()),
    seldom(st.tuples(state_matchers), ()),
)


predicates: st.Strategy[Predicate] = st.recursive(
    st.builds(SinglePredicate, st.builds(Input, st.just("header"), st.sampled_from(HEADER_NAMES)), strings),
    lambda some: st.one_of(
        st.builds(Not, some),
        st.builds(OneOf, st.tuples(some, some)),
        st.builds(AllOf, st.tuples(some, some)),
    ),
    depth=2,
)


def matchers(indexes: int) -> st.Strategy[Matcher[tuple[int, ...]]]:
    """Matchers whose actions are some of that many routes."""
    some = st.lists(st.integers(0, indexes - 1), min_size=1, max_size=3).map(tuple)

    def around(inner: st.Strategy[Matcher[tuple[int, ...]]]) -> st.Strategy[Matcher[tuple[int, ...]]]:
        actions = st.one_of(some, some, inner)
        then = st.builds(OnMatch, actions)
        otherwise = st.one_of(st.none(), then)
        lines = st.lists(st.builds(FieldMatcher, predicates, then), max_size=3).map(tuple)
        entries = st.dictionaries(st.sampled_from(("/", "/a", "/a/b", "a", "1", "GET")), then, min_size=1, max_size=3)
        return st.one_of(
            st.builds(MatcherList, lines, otherwise),
            st.builds(
                MatcherTree,
                st.builds(Input, st.just("header"), st.sampled_from((":path", ":path", "x-a", ":method"))),
                st.sampled_from(("exact_match_map", "prefix_match_map")),
                entries.map(lambda found: tuple(sorted(found.items()))),
                otherwise,
            ),
        )

    return around(around(st.builds(MatcherList, st.just(()), st.builds(OnMatch, some))))


def near(path: PathMatcher) -> tuple[str, ...]:
    if path.kind == "safe_regex":
        return tuple(candidate for candidate in PATHS if re.fullmatch(path.value, candidate)) or PATHS
    if path.kind == "uri_template":
        return ("/a/b", "/b/1", "/ab", "/a/b/c", "/a/x=y", "/A")
    literal = path.value or "/"
    return (literal,) * 6 + (*(literal + tail for tail in ("/", "b", "/b", "/1")), literal.swapcase())


def header_for(matcher: HeaderMatcher) -> st.Strategy[list[tuple[str, str]]]:
    """Nothing, a value from the pool, or the value the matcher looks for."""
    name = matcher.name
    if name.startswith(":") or name in ("host", "content-type"):
        return st.just([])
    wanted = _values_for(matcher.match) if isinstance(matcher.match, StringMatcher) else ("3", "-5", "10")
    return st.one_of(
        st.sampled_from(wanted).map(lambda value: [(name, value)]),
        st.sampled_from((None, *VALUES)).map(lambda value: [] if value is None else [(name, value)]),
    )


def _values_for(matcher: StringMatcher) -> tuple[str, ...]:
    if matcher.kind == "safe_regex":
        return tuple(value for value in VALUES if re.fullmatch(matcher.value, value)) or VALUES
    return (matcher.value, matcher.value, matcher.value.swapcase())


def queries_for(match: RouteMatch) -> tuple[str, ...]:
    values = [
        (parameter.name, _values_for(parameter.match)[0] if isinstance(parameter.match, StringMatcher) else "1")
        for parameter in match.query_parameters
    ]
    return tuple(f"?{name}={value}" for name, value in values if " " not in value) or ("",)
