"""What Envoy refuses meshlib refuses."""

from contextlib import suppress
from dataclasses import replace

import pytest

from differential.routing_envoy import RefusedError, RoutingEnvoy
from differential.routing_ours import OurRouting
from differential.routing_render import route_configuration
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matcher_tree import FieldMatcher, Input, MatcherList, OnMatch, SinglePredicate
from meshlib.model.matchers import HeaderMatcher, PathMatcher, RegexRewrite, RouteMatch, StringMatcher
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    DirectResponseAction,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.routing.headers import compile_mutations
from meshlib.routing.rewrite import compile_path_rewrite
from meshlib.routing.weighted import compile_weighted

ALL = RouteMatch(PathMatcher("prefix", "/"))
ANSWER = Route(ALL, DirectResponseAction(200))


def one(route: Route, *domains: str) -> RouteConfiguration:
    return RouteConfiguration("generated", (VirtualHost("h", domains or ("*",), (route,)),))


def setting(name: str, value: str) -> Route:
    return replace(ANSWER, request_headers=HeaderMutations((HeaderValueOption(name, value),)))


def one_matcher(match: StringMatcher) -> RouteConfiguration:
    predicate = SinglePredicate(Input("header", "x"), match)
    tree = MatcherList((FieldMatcher(predicate, OnMatch((0,))),))
    return RouteConfiguration("generated", (VirtualHost("h", ("*",), (ANSWER,), matcher=tree),))


TEMPLATES = (
    *("a", "/a//b", "/{a}{b}", "/**/*", "/{a=**}/{b}", "/{a}/{a}", "/{abcdefghijklmnopq}", "/{a}/{b}/{c}/{d}/{e}/{f}"),
    *("/{1a}", "/{a=}", "/{a=b/}", "/{a=/b}", "/{a=***}", "/{a={b}}", "/*{a}", "/{a", "/}", "/a/**.x/y", "/{a-1}"),
    *("/a?b", "/{}", "/{=a}", "/a{b", "/", "/**", "/*/**/x", "/{a=*/**}/x.y", "/a{b}", "/a*", "/*a", "/{a}.x/y"),
    *("/{a=b*}", "/{a=b=c}", "/a=b", "/**a", "/**/", "/*/", "/{a_1}", "/%41", "/x{a=**}y", "/a{b}/{c}d"),
)
"""Good and bad ones."""

REFUSED = {
    "path regex": one(Route(RouteMatch(PathMatcher("safe_regex", "(")), ANSWER.action)),
    "header regex": one(
        Route(replace(ALL, headers=(HeaderMatcher("x", StringMatcher("safe_regex", "a**")),)), ANSWER.action)
    ),
    "rewrite regex": one(Route(ALL, RouteAction("c0", regex_rewrite=RegexRewrite("(?=a)", "")))),
    "redirect regex": one(Route(ALL, RedirectAction(regex_rewrite=RegexRewrite(r"(a)\1", "")))),
    "domain twice": one(ANSWER, "a.test", "A.TEST"),
    "host header": one(setting("host", "x")),
    "pseudo header": one(setting(":path", "/x")),
    "removed host": one(replace(ANSWER, request_headers=HeaderMutations(remove=("host",)))),
    "lone percent sign": one(setting("x-a", "50%")),
    "unknown formatter": one(setting("x-a", "%NO_SUCH_THING%")),
    "path template": one(Route(RouteMatch(PathMatcher("uri_template", "/a//b")), ANSWER.action)),
    "glob behind the rest": one(Route(RouteMatch(PathMatcher("uri_template", "/**/*")), ANSWER.action)),
    "template rewrite of a prefix": one(Route(ALL, RouteAction("c0", path_template_rewrite="/a"))),
    "unknown variable": one(
        Route(RouteMatch(PathMatcher("uri_template", "/{a}")), RouteAction("c0", path_template_rewrite="/{b}"))
    ),
    "matcher's regex": one_matcher(StringMatcher("safe_regex", "(")),
    "weights of zero": one(Route(ALL, RouteAction(WeightedClusters((WeightedCluster("c0", 0),))))),
    "weights too large": one(
        Route(ALL, RouteAction(WeightedClusters((WeightedCluster("c0", 2**32 - 1), WeightedCluster("c1", 1)))))
    ),
}


def compile_all(config: RouteConfiguration) -> None:
    """What a plan compiles of a route configuration."""
    OurRouting(config)
    for host in config.virtual_hosts:
        for route in host.routes:
            compile_path_rewrite(route)
            compile_mutations(route.request_headers)
            if isinstance(route.action, RouteAction) and isinstance(route.action.cluster, WeightedClusters):
                compile_weighted(route.action.cluster)


@pytest.mark.parametrize("what", REFUSED)
def test_meshlib_refuses(what: str) -> None:
    with pytest.raises(ResourceError):
        compile_all(REFUSED[what])


def test_envoy_refuses(routing_envoy: RoutingEnvoy) -> None:
    for config in REFUSED.values():
        with pytest.raises(RefusedError):
            routing_envoy.push(route_configuration(config))
    routing_envoy.push(route_configuration(one(ANSWER)))  # and it still takes what is good


def test_envoy_takes_the_same_path_templates(routing_envoy: RoutingEnvoy) -> None:
    ours, theirs = [], []
    for template in TEMPLATES:
        config = one(Route(RouteMatch(PathMatcher("uri_template", template)), ANSWER.action))
        with suppress(ResourceError):
            compile_all(config)
            ours.append(template)
        with suppress(RefusedError):
            routing_envoy.push(route_configuration(config))
            theirs.append(template)
    assert ours == theirs
