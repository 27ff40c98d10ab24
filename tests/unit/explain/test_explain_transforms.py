"""Explain says what filters and operators make of a request and of its answer, and what a proxy would answer."""

from __future__ import annotations

from meshlib.explain import Explainer, Explanation
from meshlib.model.cluster import Cluster
from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.header_mutation import HeaderMutationFilter, MutationStep
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster

ANYTHING = RouteMatch(PathMatcher("prefix", "/"))
FILTER = HeaderMutationFilter(
    request=(MutationStep(append=HeaderValueOption("x-tier", "%REQ(x-plan)%-%ROUTE_NAME%")),),
    response=(MutationStep(append=HeaderValueOption("x-status", "%RESPONSE_CODE%")),),
)
BY = HeaderMutations((HeaderValueOption("x-by", "%UPSTREAM_HOST%"),))


def explained(action: RouteAction | DirectResponseAction) -> Explanation:
    route = Route(ANYTHING, action, name="shop", response_headers=BY)
    config = RouteConfiguration("routes", (VirtualHost("h", ("*",), (route,)),))
    filters = (HttpFilter("hm", FILTER), HttpFilter("router", RouterFilter()))
    listener = Listener("out", (HttpConnectionManager(config, filters),), port=80)
    cluster: Cluster = static_cluster("payments", ("10.0.0.1:80",))
    snapshot = Snapshot(listeners={"out": listener}, clusters={"payments": cluster})
    return Explainer(snapshot, seed=1).explain("GET", "http://payments/", {"x-plan": "gold"})


def test_what_a_filter_adds_goes_to_the_endpoint() -> None:
    found = explained(RouteAction("payments"))
    assert ["x-tier", "gold-shop"] in found.headers
    assert ["x-by", "10.0.0.1:80"] in found.response_headers


def test_the_answer_of_a_route_has_the_filters_headers() -> None:
    found = explained(DirectResponseAction(404))
    assert found.response_headers == [["x-status", "404"]]  # what is empty is left out: there was no endpoint


def test_a_missing_cluster_has_the_status_of_a_proxy() -> None:
    found = explained(RouteAction("gone", cluster_not_found_response_code=500))
    assert (found.response_flag, found.failure_status) == ("NC", 500)
