"""Virtual host choice and first-match-wins."""

import random

import pytest

from meshlib.model.matchers import (
    FractionalPercent,
    HeaderMatcher,
    PathMatcher,
    RegexRewrite,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, RedirectAction, Route, RouteConfiguration, VirtualHost
from meshlib.routing.router import REMEMBERED_AUTHORITIES, RouteTable, RouteTrial, VirtualHostTable

ANSWER = DirectResponseAction(200)


class NoChance:
    """An rng that must not be asked."""

    def random(self) -> float:
        raise AssertionError("drawn from, though no fraction was in question")


class Samples:
    """An rng with prepared samples."""

    def __init__(self, *samples: float) -> None:
        self._samples = list(samples)

    def random(self) -> float:
        return self._samples.pop(0)


def table(*domains: tuple[str, ...], ignore_port: bool = False) -> RouteTable:
    hosts = tuple(VirtualHost(group[0], group, ()) for group in domains)
    return RouteTable(RouteConfiguration("r", hosts, ignore_port_in_host_matching=ignore_port))


def found(routes: RouteTable, authority: str) -> str | None:
    host = routes.virtual_host(authority)
    return host.config.name if host else None


def host_of(*routes: Route) -> VirtualHostTable:
    return VirtualHostTable(VirtualHost("h", ("*",), routes))


def get(path: str, *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("GET", "http", "a.test", path, headers)


def route(path: str, kind: str = "prefix", **match: object) -> Route:
    return Route(RouteMatch(PathMatcher(kind, path), **match), ANSWER, name=path)  # type: ignore[arg-type]


DOMAINS = table(
    ("a.test",), ("*.test",), ("*-x.test",), ("*.b.test",), ("a.*",), ("a.b.*",), ("*",), ("Mixed.Case",), ("[::1]:80",)
)


@pytest.mark.parametrize(
    "authority, expected",
    [
        ("a.test", "a.test"),
        ("A.TEST", "a.test"),
        ("mixed.case", "Mixed.Case"),
        ("c.test", "*.test"),
        ("y-x.test", "*-x.test"),  # the longest suffix
        ("c.b.test", "*.b.test"),
        (".test", "*"),  # the star stands for at least one character
        ("a.b.c", "a.b.*"),  # the longest prefix
        ("a.b.", "a.*"),
        ("a.b.test", "*.b.test"),  # suffixes before prefixes
        ("a.test:80", "a.*"),  # the port is part of what is matched
        ("[::1]:80", "[::1]:80"),
        ("other", "*"),
        ("", None),
    ],
)
def test_virtual_hosts(authority: str, expected: str | None) -> None:
    assert found(DOMAINS, authority) == expected
    assert found(DOMAINS, authority) == expected  # once more, from memory


def test_no_virtual_host() -> None:
    assert found(table(("a.test",)), "b.test") is None


def test_an_empty_authority_meets_a_lone_star() -> None:
    assert found(table(("*",)), "") == "*"


@pytest.mark.parametrize(
    "authority, expected", [("a.test:8080", "a.test"), ("a.test", "a.test"), ("[::1]:1", "[::1]"), ("[::1]", "[::1]")]
)
def test_ports_can_be_ignored(authority: str, expected: str) -> None:
    assert found(table(("a.test",), ("[::1]",), ignore_port=True), authority) == expected


def test_a_domain_stands_once() -> None:
    with pytest.raises(ResourceError, match=r"virtual_hosts.domains: 'A.test' stands twice"):
        table(("a.test",), ("A.test",))


def test_memory_of_authorities_is_bounded() -> None:
    routes = table(("*",))
    for number in range(REMEMBERED_AUTHORITIES + 10):
        assert found(routes, f"h{number}") == "*"
    assert len(routes._memory) <= REMEMBERED_AUTHORITIES


@pytest.mark.parametrize(
    "path, expected", [("/a", 0), ("/a/b", 1), ("/b", 2), ("/c/1", 3), ("/c/x", 4), ("/D", 5), ("/zz", -1), ("/a?q", 0)]
)
def test_the_first_route_that_matches_decides(path: str, expected: int) -> None:
    host = host_of(
        route("/a", "path"),
        route("/a"),
        route("/b", "path_separated_prefix"),
        route("/c/[0-9]", "safe_regex"),
        route("/c"),
        Route(RouteMatch(PathMatcher("path", "/d", case_sensitive=False)), ANSWER),
        route("/a/b", "path"),  # never reached: an earlier prefix has it
    )
    assert host.match(get(path), NoChance()) == expected


def test_a_condition_that_fails_lets_the_next_route_try() -> None:
    canary = HeaderMatcher("x-canary", StringMatcher("exact", "1"))
    host = host_of(route("/a", headers=(canary,)), route("/a"))
    assert host.match(get("/a", (b"X-Canary", b"1")), NoChance()) == 0
    assert host.match(get("/a"), NoChance()) == 1


def test_fractions_of_one_request_share_one_sample() -> None:
    half = FractionalPercent(50)
    host = host_of(route("/a", runtime_fraction=half), route("/a", runtime_fraction=half), route("/a"))
    assert host.match(get("/a"), Samples(0.4)) == 0
    assert host.match(get("/a"), Samples(0.6)) == 2  # the second half is the same half, as in Envoy


def test_no_sample_is_drawn_for_a_route_that_fails_otherwise() -> None:
    host = host_of(route("/other", runtime_fraction=FractionalPercent(50)), route("/a"))
    assert host.match(get("/a"), NoChance()) == 1


def test_a_fraction_gets_its_share() -> None:
    host = host_of(route("/a", runtime_fraction=FractionalPercent(500, 10_000)), route("/a"))
    rng = random.Random(7)
    hits = sum(host.match(get("/a"), rng) == 0 for _ in range(20_000))
    assert 870 < hits < 1130  # 1000 expected, four standard deviations


def test_trace_tells_every_route_tried_and_why_it_failed() -> None:
    host = host_of(
        route("/b"),
        route("/a", headers=(HeaderMatcher("x", StringMatcher("exact", "1")),)),
        route("/a", runtime_fraction=FractionalPercent(10)),
        route("/a"),
        route("/"),
    )
    assert host.trace(get("/a"), Samples(0.5)) == [
        RouteTrial(0, "/b", matched=False, failed="prefix '/b'"),
        RouteTrial(1, "/a", matched=False, failed="header x exact '1'"),
        RouteTrial(2, "/a", matched=False, failed="runtime fraction 10/100"),
        RouteTrial(3, "/a", matched=True),
    ]


@pytest.mark.parametrize(
    "broken, path",
    [
        (route("(", "safe_regex"), "virtual_hosts[0].routes[1].match.path.regex"),
        (
            Route(RouteMatch(PathMatcher("prefix", "/")), RedirectAction(regex_rewrite=RegexRewrite("(", ""))),
            "virtual_hosts[0].routes[1].redirect.regex_rewrite.regex",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_field(broken: Route, path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        RouteTable(RouteConfiguration("r", (VirtualHost("h", ("*",), (route("/"), broken)),)))
    assert refused.value.path == path
