"""Strategies for route configurations and for requests that have a chance to match them.

Everything is drawn from small pools, and requests are made from the literals of the routes, so that most requests meet
several candidates and the order of routes decides.
"""

from dataclasses import replace

from differential import draws as st
from differential.routing_envoy import CLUSTERS
from differential.routing_generate_matches import (
    CONTENT_TYPES,
    COOKIES,
    PATHS,
    QUERIES,
    TEMPLATES,
    VALUES,
    header_for,
    matchers,
    matches,
    near,
    queries_for,
)
from differential.routing_observed import ROUTE_HEADER, Ask
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import (
    RegexRewrite,
)
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)

METHODS = ("GET", "GET", "POST", "DELETE")
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

VALUES_TO_SET = (
    *("v", "", "%%", "a%REQ(x-a)%z", "%REQ(x-b?x-a):1%", "%REQ(x-m)%", "%REQ(X-A)%", "%REQ(:METHOD)%"),
    *("%PATH(NQ)%", "%QUERY_PARAM(x)%:%PROTOCOL%"),
)


def mutations(*more_values: str) -> st.Strategy[HeaderMutations]:
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


request_mutations = mutations("%REQ(:PATH)%", "%ROUTE_NAME%|%UPSTREAM_CLUSTER%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%")
response_mutations = mutations()

host_rewrites = st.one_of(
    st.builds(HostRewrite, st.just("literal"), st.just("literal.host")),
    st.builds(HostRewrite, st.just("header"), st.sampled_from(("x-a", "x-m"))),
    st.builds(HostRewrite, st.just("path_regex"), st.just(""), st.just(RegexRewrite("^/([a-z]+).*$", r"\1.host"))),
    st.just(HostRewrite("auto")),
    st.builds(HostRewrite, st.just("format"), st.sampled_from(("%REQ(x-a)%.host", "%REQ(x-none)%", "plain.host"))),
)


@st.composite
def clusters(draw: st.DrawFn) -> str | WeightedClusters | ClusterHeader:
    """One cluster, one chosen by a header, or shares of which a single one has weight."""
    kind = draw(st.sampled_from(("name", "name", "header", "weighted", "numbered", "hashed")))
    if kind in ("numbered", "hashed"):
        return draw(keyed_clusters(hashed=kind == "hashed"))
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
def keyed_clusters(draw: st.DrawFn, hashed: bool) -> WeightedClusters:
    """Shares among which the request decides: by a number that all requests have, or by its path's hash."""
    shares = [
        WeightedCluster(
            name,
            draw(st.integers(0, 100)),
            request_headers=draw(request_mutations),
            cluster_header="" if name else "x-cluster",
        )
        for name in (*CLUSTERS, "")
    ]
    shares[0] = replace(shares[0], weight=max(1, shares[0].weight))
    return WeightedClusters(tuple(shares), "" if hashed else "x-number", hashed)


@st.composite
def route_actions(draw: st.DrawFn) -> RouteAction:
    rewrite = draw(st.sampled_from(("none", "prefix", "regex", "format")))
    cluster = draw(clusters())
    hashed = isinstance(cluster, WeightedClusters) and cluster.use_hash_policy
    return RouteAction(
        cluster=cluster,
        hash_policies=(HashPolicy("header", ":path"),) if hashed else (),
        cluster_not_found_response_code=draw(st.sampled_from((503, 404, 500))),
        path_rewrite=draw(st.sampled_from(("/f%PATH(NQ)%", "%REQ(x-none)%", "/f"))) if rewrite == "format" else "",
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
    st.builds(DirectResponseAction, st.sampled_from((200, 201, 204, 302, 403, 503)), st.just(b"direct")),
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
            require_tls=draw(st.sampled_from((*("NONE",) * 20, "ALL", "EXTERNAL_ONLY"))),
            request_headers=draw(request_mutations),
            response_headers=draw(response_mutations),
        )
        for number, group in enumerate(groups)
        if group
    ]
    hosts = [
        replace(host, matcher=draw(matchers(len(host.routes)))) if draw(st.sampled_from(range(5))) == 4 else host
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
    path = draw(st.sampled_from((*near(target.match.path) * 2, *PATHS)))
    path += draw(st.sampled_from((*queries_for(target.match) * 4, *QUERIES)))
    headers = [pair for matcher in target.match.headers for pair in draw(header_for(matcher))]
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
    headers.append(("x-number", str(draw(st.integers(0, 2**64 - 1)))))
    headers += draw(
        st.sampled_from(([], [], [("x-forwarded-host", f"first.test,{authority}")], [("x-forwarded-host", "f")]))
    )
    return Ask(draw(st.sampled_from(METHODS)), authority, path, tuple(headers))


def _fitting(domain: str) -> str:
    return "some" + domain[1:] if domain.startswith("*") else domain.replace("*", "some")
