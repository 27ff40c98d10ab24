"""Hypothesis strategies for route configurations and for requests that have a chance to match them.

Everything is drawn from small pools, and requests are made from the literals of the routes, so that most requests meet
several candidates and the order of routes decides.
"""

import re
from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st

from differential.routing_envoy import CLUSTERS
from differential.routing_observed import ROUTE_HEADER, Ask
from meshlib.model.context_matchers import AnyValue, FilterStateMatcher, MetadataMatcher, TlsContextMatch
from meshlib.model.headers import HeaderMutations, HeaderValueOption
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
    RegexRewrite,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HostRewrite,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
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
METHODS = ("GET", "GET", "POST", "DELETE")
REGEXES = ("a.*", "[0-9]+", "(a|b)", "/a(/.*)?", "/b/([0-9])[0-9]*", ".*", "A|a,b", "/[^/]+", "x?")
DOMAINS = (
    "a.test",
    "A.other",
    "*.test",
    "*-x.test",
    "*.b.test",
    "a.*",
    "a.b.*",
    "*",
    "a.test:8080",
    "*:8080",
    "[::1]:8080",
)
AUTHORITIES = (
    *("a.test", "A.TEST", "b.test", "c.b.test", "y-x.test", "-x.test", "a.test:8080", "a.test:80", "a.other", "a.b.c"),
    *("a.b.", "zzz", "b.test:8080", "[::1]:8080", "[::1]", "a.other:443", "A.x"),
)
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
    FractionalPercent, st.sampled_from((0, 100)), st.just(100), st.sampled_from(("", "", *RUNTIME, "missing"))
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


def seldom(strategy: st.SearchStrategy[T], nothing: N) -> st.SearchStrategy[T | N]:
    return st.integers(0, 15).flatmap(lambda n: strategy if n == 0 else st.just(nothing))


matches = st.builds(
    RouteMatch,
    paths,
    st.one_of(st.just(()), st.just(()), st.tuples(header_matchers), st.tuples(header_matchers, header_matchers)),
    st.one_of(st.just(()), st.just(()), st.tuples(query_matchers)),
    st.sampled_from((*(False,) * 9, True)),
    st.one_of(*[st.none()] * 7, fractions, st.just(FractionalPercent(1_000_000, 1_000_000))),
    st.one_of(*[st.just(())] * 5, st.tuples(cookie_matchers)),
    seldom(tls_matches, None),
    seldom(st.tuples(metadata_matchers), ()),
    seldom(st.tuples(state_matchers), ()),
)

regex_rewrites = st.builds(
    RegexRewrite,
    st.sampled_from(("a", "/a", "b*", "/(.)/?(.*)", "^/", "[0-9]", "x")),
    st.sampled_from(("z", "", "/z", r"\0\0", r"\\")),
)
group_rewrites = st.builds(RegexRewrite, st.sampled_from(("/(.)(.*)", "(/)(a|b)")), st.sampled_from((r"/\2\1", r"\1x")))
any_rewrites = st.one_of(regex_rewrites, group_rewrites)
# What leaves the path its leading slash.
upstream_rewrites = st.sampled_from(
    tuple(
        RegexRewrite(pattern, substitution)
        for pattern, substitution in (
            *(("a", "z"), ("a", ""), ("/a", "/z"), ("[0-9]", r"\0\0"), ("x", r"\\"), ("^/", "/z/"), (".*", "")),
            *(("/(.)/?(.*)", r"/\2\1"), ("/(.)(.*)", r"/\2/\1"), ("(/)(a|b)", r"\1x"), ("(.)/$", r"\1"), ("b*$", "-")),
        )
    )
)
rewritten_prefixes = st.sampled_from(("/", "/r", "/r/", "/long/er"))

VALUES_TO_SET = ("v", "", "%%", "a%REQ(x-a)%z", "%REQ(x-b?x-a):1%", "%REQ(x-m)%", "%REQ(X-A)%", "%REQ(:METHOD)%")


def mutations(*more_values: str) -> st.SearchStrategy[HeaderMutations]:
    names = ("x-a", "x-b", "x-m", "x-n", "x-resp-a")
    actions = ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")
    options = st.builds(
        HeaderValueOption,
        st.sampled_from(names),
        st.sampled_from((*VALUES_TO_SET, *more_values)),
        st.sampled_from(actions),
        st.booleans(),
    )
    some = st.builds(
        HeaderMutations,
        st.lists(options, max_size=3).map(tuple),
        st.lists(st.sampled_from(names), max_size=1).map(tuple),
    )
    return st.one_of(st.just(HeaderMutations()), some)


request_mutations = mutations("%REQ(:PATH)%")
response_mutations = mutations()

host_rewrites = st.one_of(
    st.builds(HostRewrite, st.just("literal"), st.just("literal.host")),
    st.builds(HostRewrite, st.just("header"), st.sampled_from(("x-a", "x-m"))),
    st.builds(HostRewrite, st.just("path_regex"), st.just(""), st.just(RegexRewrite("^/([a-z]+).*$", r"\1.host"))),
    st.just(HostRewrite("auto")),
)


@st.composite
def clusters(draw: st.DrawFn) -> str | WeightedClusters | ClusterHeader:
    """One cluster, one chosen by a header, or shares of which a single one has weight."""
    kind = draw(st.sampled_from(("name", "name", "header", "weighted")))
    if kind == "name":
        return draw(st.sampled_from((*CLUSTERS, *CLUSTERS, "missing")))
    if kind == "header":
        return ClusterHeader("x-cluster")
    shares = [
        WeightedCluster(
            name,
            0,
            request_headers=draw(request_mutations),
            response_headers=draw(response_mutations),
            host_rewrite_literal=draw(st.sampled_from(("", "share.host"))),
        )
        for name in CLUSTERS
    ]
    chosen = draw(st.integers(0, len(shares) - 1))
    shares[chosen] = replace(shares[chosen], weight=draw(st.sampled_from((1, 100, 2**32 - 1))))
    return WeightedClusters(tuple(shares))


@st.composite
def route_actions(draw: st.DrawFn) -> RouteAction:
    rewrite = draw(st.sampled_from(("none", "prefix", "regex")))
    return RouteAction(
        cluster=draw(clusters()),
        timeout=None,
        prefix_rewrite=draw(rewritten_prefixes) if rewrite == "prefix" else "",
        regex_rewrite=draw(upstream_rewrites) if rewrite == "regex" else None,
        append_x_forwarded_host=draw(st.booleans()),
        host_rewrite=draw(st.one_of(st.none(), host_rewrites)),
    )


@st.composite
def redirects(draw: st.DrawFn) -> RedirectAction:
    path = draw(st.sampled_from(("none", "path", "prefix", "regex")))
    scheme = draw(st.sampled_from(("none", "https", "scheme")))
    return RedirectAction(
        response_code=draw(st.sampled_from((301, 302, 303, 307, 308))),
        https_redirect=scheme == "https",
        scheme_redirect=draw(st.sampled_from(("https", "http", "ftp"))) if scheme == "scheme" else "",
        host_redirect=draw(st.sampled_from(("", "", "other.host", "other.host:99"))),
        port_redirect=draw(st.sampled_from((None, None, 8443))),
        path_redirect=draw(st.sampled_from(("/to", "/to?own=1", "/to/"))) if path == "path" else "",
        prefix_rewrite=draw(rewritten_prefixes) if path == "prefix" else None,
        regex_rewrite=draw(any_rewrites) if path == "regex" else None,
        strip_query=draw(st.booleans()),
    )


actions = st.one_of(
    st.builds(DirectResponseAction, st.sampled_from((200, 204, 403, 503)), st.just(b"direct")),
    redirects(),
    route_actions(),
    route_actions(),
)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """A template has no prefix to rewrite, but variables."""
    match, action = draw(matches), draw(actions)
    if match.path.kind == "uri_template":
        if isinstance(action, RouteAction) and action.prefix_rewrite:
            action = replace(action, prefix_rewrite="", path_template_rewrite=TEMPLATES[match.path.value])
        elif isinstance(action, RedirectAction):
            action = replace(action, prefix_rewrite=None)
    return Route(match, action, request_headers=draw(request_mutations), response_headers=draw(response_mutations))


predicates: st.SearchStrategy[Predicate] = st.recursive(
    st.builds(SinglePredicate, st.builds(Input, st.just("header"), st.sampled_from(HEADER_NAMES)), strings),
    lambda some: st.one_of(
        st.builds(Not, some),
        st.builds(OneOf, st.tuples(some, some)),
        st.builds(AllOf, st.tuples(some, some)),
    ),
    max_leaves=3,
)


def matchers(indexes: int) -> st.SearchStrategy[Matcher[tuple[int, ...]]]:
    """Matchers whose actions are some of that many routes."""
    some = st.lists(st.integers(0, indexes - 1), min_size=1, max_size=3).map(tuple)

    def around(inner: st.SearchStrategy[Matcher[tuple[int, ...]]]) -> st.SearchStrategy[Matcher[tuple[int, ...]]]:
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


@st.composite
def configurations(draw: st.DrawFn, max_routes: int = 5) -> RouteConfiguration:
    """Up to three virtual hosts; every route names itself in the response header `ROUTE_HEADER`."""
    domains = draw(st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=6, unique_by=str.lower))
    cuts = sorted(draw(st.lists(st.integers(1, len(domains)), max_size=2)))
    groups = [domains[start:end] for start, end in zip([0, *cuts], [*cuts, len(domains)], strict=True)]
    hosts = [
        VirtualHost(
            f"h{number}",
            tuple(group),
            tuple(
                named(f"h{number}/{index}", route)
                for index, route in enumerate(draw(st.lists(routes(), min_size=1, max_size=max_routes)))
            ),
            require_tls=draw(st.sampled_from((*("NONE",) * 10, "ALL", "EXTERNAL_ONLY"))),
            request_headers=draw(request_mutations),
            response_headers=draw(response_mutations),
        )
        for number, group in enumerate(groups)
        if group
    ]
    hosts = [
        replace(host, matcher=draw(matchers(len(host.routes)))) if draw(st.integers(0, 5)) == 0 else host
        for host in hosts
    ]
    return RouteConfiguration(
        "generated",
        tuple(hosts),
        request_headers=draw(request_mutations),
        response_headers=draw(response_mutations),
        most_specific_header_mutations_wins=draw(st.booleans()),
        ignore_port_in_host_matching=draw(st.booleans()),
    )


def named(name: str, route: Route) -> Route:
    """The route, saying its name in every answer."""
    own = HeaderValueOption(ROUTE_HEADER, name, "OVERWRITE_IF_EXISTS_OR_ADD")
    responses = replace(route.response_headers, add=(*route.response_headers.add, own))
    return replace(route, name=name, response_headers=responses)


@st.composite
def asks(draw: st.DrawFn, config: RouteConfiguration) -> Ask:
    """A request; usually built on one of the routes: its host, its path literal, its headers' values."""
    host = draw(st.sampled_from(config.virtual_hosts))
    target = draw(st.sampled_from(host.routes))
    fitting = [_fitting(domain) for domain in host.domains] * 3
    authority = draw(st.sampled_from((*fitting, *AUTHORITIES[: len(fitting)], draw(st.sampled_from(AUTHORITIES)))))
    path = draw(st.sampled_from((*_near(target.match.path) * 2, *PATHS)))
    path += draw(st.sampled_from((*_queries_for(target.match) * 4, *QUERIES)))
    headers = [pair for matcher in target.match.headers for pair in draw(_header_for(matcher))]
    headers += draw(
        st.lists(st.tuples(st.sampled_from(("x-a", "x-b", "x-n")), st.sampled_from(("", *VALUES))), max_size=2)
    )
    if target.match.grpc or draw(st.integers(0, 9)) == 0:
        headers.append(("content-type", draw(st.sampled_from(CONTENT_TYPES))))
    if target.match.cookies or draw(st.integers(0, 9)) == 0:
        headers += draw(st.lists(st.sampled_from(COOKIES).map(lambda value: ("cookie", value)), max_size=2))
    if host.require_tls != "NONE":
        headers += draw(st.sampled_from(([], [("x-forwarded-proto", "https")], [("x-forwarded-proto", "http")])))
    headers += draw(st.sampled_from(([], [("x-cluster", "c1")], [("x-cluster", "nope")])))
    headers += draw(
        st.sampled_from(([], [], [("x-forwarded-host", f"first.test,{authority}")], [("x-forwarded-host", "f")]))
    )
    return Ask(draw(st.sampled_from(METHODS)), authority, path, tuple(headers))


def _near(path: PathMatcher) -> tuple[str, ...]:
    if path.kind == "safe_regex":
        return tuple(candidate for candidate in PATHS if re.fullmatch(path.value, candidate)) or PATHS
    if path.kind == "uri_template":
        return ("/a/b", "/b/1", "/ab", "/a/b/c", "/a/x=y", "/A")
    literal = path.value or "/"
    return (literal,) * 6 + (*(literal + tail for tail in ("/", "b", "/b", "/1")), literal.swapcase())


def _fitting(domain: str) -> str:
    return "some" + domain[1:] if domain.startswith("*") else domain.replace("*", "some")


def _header_for(matcher: HeaderMatcher) -> st.SearchStrategy[list[tuple[str, str]]]:
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


def _queries_for(match: RouteMatch) -> tuple[str, ...]:
    values = [
        (parameter.name, _values_for(parameter.match)[0] if isinstance(parameter.match, StringMatcher) else "1")
        for parameter in match.query_parameters
    ]
    return tuple(f"?{name}={value}" for name, value in values if " " not in value) or ("",)
