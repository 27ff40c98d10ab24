"""The decision: which route, which cluster. One function for the hot path and for `meshlib explain`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from meshlib.engine import facts
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.filters import LocalReply
from meshlib.engine.plan import Plan
from meshlib.engine.route import RoutePlan, Share
from meshlib.engine.table import VirtualHostPlan
from meshlib.flags import ResponseFlag
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.model.route import ClusterHeader, ClusterSpecifier, DirectResponseAction, RedirectAction, RouteAction
from meshlib.policy.rng import Rng
from meshlib.routing.facts import CallFacts, Scene
from meshlib.routing.headers import Headers, MakeFacts
from meshlib.routing.text import wire_bytes
from meshlib.routing.weighted import WeightedChoice

ORIGINAL_PATH = b"x-envoy-original-path"
ORIGINAL_HOST = b"x-envoy-original-host"
FORWARDED_HOST = b"x-forwarded-host"
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
_REMEMBERED = 4096


class Forward:
    """Send the request to `cluster` by `route`; `share` is the part of the route that was chosen."""

    __slots__ = ("action", "cluster", "cluster_name", "route", "share")

    def __init__(self, route: RoutePlan, action: RouteAction, share: Share, cluster: ClusterPlan) -> None:
        self.route = route
        self.action = action
        self.share = share
        self.cluster = cluster
        self.cluster_name = cluster.name


class Answer:
    """Answer from configuration: a redirect or a direct response. `location` is empty where there is none to tell."""

    __slots__ = ("body", "location", "route", "share", "status")
    cluster: ClusterPlan | None = None
    cluster_name = ""

    def __init__(self, route: RoutePlan, status: int, location: str, body: bytes) -> None:
        self.route = route
        self.share = route.shares[0]
        self.status = status
        self.location = location
        self.body = body

    def content(self, head: RequestHead, clock: facts.Clock = facts.no_clock) -> tuple[Headers, bytes]:
        """The response headers for the caller's request, after the route's mutations, and the body."""

        def known() -> CallFacts:
            return facts.of_answer(self, clock)

        headers = [(b"location", self.location.encode("latin-1"))] if self.location else []
        share, write, body = self.share, self.route.write_body, self.body
        if share.route_response is not None:
            headers = share.route_response(headers, head, known)
        if write is not None:
            said = self.body.decode("latin-1")  # and of the response headers a body sees none, as in Envoy
            body = wire_bytes(write(Scene(head, head.headers, (), lambda: facts.of_answer(self, clock, body=said))))
        if body:
            headers = with_content_type(headers, self.route.content_type)
        if share.filter_response is not None:  # the filters see the status, which the route's headers do not
            headers = share.filter_response(headers, head, lambda: facts.of_answer(self, clock, self.status))
        return headers, body


class Refusal:
    """There is nowhere to go: NR (no route, `route` None) or NC (its cluster does not exist, or it does not forward).
    `status` is what a proxy answers then.
    """

    __slots__ = ("cluster_name", "flag", "reason", "route", "status")

    def __init__(
        self,
        flag: ResponseFlag,
        reason: str,
        route: RoutePlan | None = None,
        cluster_name: str = "",
        status: int = 404,
    ) -> None:
        self.status = status
        self.flag = flag
        self.reason = reason
        self.route = route
        self.cluster_name = cluster_name


Decision = Forward | Answer | Refusal


def decide(plan: Plan, host: VirtualHostPlan, head: RequestHead, rng: Rng) -> Decision:
    """Match the routes of a virtual host, then choose the cluster. Weighted choices draw from `rng`."""
    index = host.table.match(head, rng)
    if index < 0:
        return Refusal(ResponseFlag.NR, host.unmatched(head))
    route = host.routes[index]
    action = route.action
    if isinstance(action, RouteAction):
        return _choose_cluster(route, action, plan, head, rng)
    return _answer(route, head)


def decide_once(plan: Plan, host: VirtualHostPlan, head: RequestHead, rng: Rng) -> Decision:
    """The same for a shared head: what chance has no part in is remembered as long as the plan is in force."""
    decision = plan.decided.get(head)
    if decision is None:
        decision = decide(plan, host, head, rng)
        route = decision.route
        if not host.table.draws and (route is None or route.choose is None):
            if len(plan.decided) >= _REMEMBERED:
                plan.decided.clear()
            plan.decided[head] = decision
    return decision


def _choose_cluster(route: RoutePlan, action: RouteAction, plan: Plan, head: RequestHead, rng: Rng) -> Decision:
    choose = route.choose
    if choose is None:
        share = route.shares[0]
    else:
        share = route.shares[choose.pick(rng) if route.key is None else drawn(route, choose, head, rng)]
    name = share.cluster or route.cluster_name(share, head)
    cluster = plan.clusters.get(name)
    if cluster is not None:
        return Forward(route, action, share if cluster.lanes is None else cluster.lanes.share(share, head), cluster)
    status = action.cluster_not_found_response_code
    if name:
        return Refusal(ResponseFlag.NC, f"the route's cluster {name!r} does not exist", route, name, status)
    return Refusal(ResponseFlag.NC, _unnamed(action.cluster), route, "", status)


def drawn(route: RoutePlan, choose: WeightedChoice, head: RequestHead, rng: Rng) -> int:
    """The share, by the request's own number where it has one."""
    number = None if route.key is None else route.key(head)
    return choose.pick(rng) if number is None else choose.at(number % choose.total)


def _unnamed(specifier: ClusterSpecifier) -> str:
    if isinstance(specifier, ClusterHeader):
        return f"the request has no {specifier.name!r} header to name the cluster"
    return "nothing in the request names the cluster"


def _answer(route: RoutePlan, head: RequestHead) -> Decision:
    match route.action:
        case DirectResponseAction(status=status, body=body):
            return Answer(route, status, _own_url(head) if _says_where(status) else "", body)
        case RedirectAction(response_code=status) if route.location is not None:
            return Answer(route, status, route.location(head), b"")
        case _:
            reason = f"route {route.label} does not forward; it is for servers"
            return Refusal(ResponseFlag.NC, reason, route, "", 503)  # as Envoy: a route of no cluster


def _says_where(status: int) -> bool:
    """Whether Envoy puts a `location` into a direct response: 201 and all of 3xx have one, and it is the request's."""
    return status == 201 or 300 <= status < 400


def _own_url(head: RequestHead) -> str:
    return f"{head.scheme}://{head.authority}{head.path}"


def prepared(decision: Forward | Answer, head: RequestHead, clock: facts.Clock = facts.no_clock) -> RequestHead:
    """The request after the filters that change requests."""
    prepare = decision.share.prepare
    return head if prepare is None else prepare(head, lambda: facts.of_request(decision, clock))


def with_route_headers(
    decision: Forward | Answer,
    reply: LocalReply,
    head: RequestHead,
    clock: facts.Clock = facts.no_clock,
    flags: str = "",
) -> Headers:
    """The headers of an answer that a filter makes: the route's come first, and the other filters' last. `flags` are
    the call's by now.
    """
    share = decision.share
    if share.response_headers is None:
        return reply.headers
    headers: Headers = []
    if share.route_response is not None:
        headers = share.route_response(headers, head, lambda: replace(facts.of_request(decision, clock), flag=flags))
    headers = [*headers, *reply.headers]
    if share.filter_response is not None:
        known = partial(facts.of_request, decision, clock, reply.status)
        headers = share.filter_response(headers, head, lambda: replace(known(), flag=flags))
    return headers


def upstream_head(decision: Forward, head: RequestHead, clock: facts.Clock = facts.no_clock) -> RequestHead:
    """The request as the upstream will see it, but for what depends on the endpoint. `clock` is for the dates that a
    header may hold.

    Order as in Envoy's `finalizeRequestHeaders`: header mutations, then the host, then the path (the old path goes
    into `x-envoy-original-path`). `head` itself where the route changes nothing.
    """
    route, share = decision.route, decision.share
    headers = head.headers
    if share.request_headers is not None:
        headers = share.request_headers(list(headers), head, lambda: facts.of_request(decision, clock))
    path = head.path
    if route.rewrite_path is not None:
        path = route.rewrite_path(head, headers, lambda: facts.of_request(decision, clock))
        if path != head.path and share.tells_upstream:
            headers = [*_without(headers, ORIGINAL_PATH), (ORIGINAL_PATH, head.path.encode("latin-1"))]
    if headers is head.headers and path == head.path:
        return head
    return head.like(path, headers)


def with_content_type(headers: Headers, content_type: bytes) -> Headers:
    """The headers of a body the mesh made: as plain text, unless the configuration says what else it is."""
    if any(name.lower() == b"content-type" for name, _ in headers):
        return headers
    return [*headers, (b"content-type", content_type)]


def rewrite_authority(
    share: Share,
    head: RequestHead,
    upstream: RequestHead,
    hostname: str,
    append_xfh: bool,
    known: MakeFacts | None = None,
) -> RequestHead:
    """The upstream request with its host, once the endpoint (and so its hostname) is known.

    The share's literal comes first, silently; the route's own rewrite then has the last word and leaves the old host
    in `x-envoy-original-host`. It reads the mutated headers and the path before its rewrite, as in Envoy.
    """
    before = share.authority or head.authority
    after = before
    if share.rewrite_host is not None:
        seen = RequestHead(head.method, head.scheme, head.authority, head.path, upstream.headers)
        after = share.rewrite_host(seen, hostname, known) or before
    if after == upstream.authority:
        return upstream
    headers = [(b"Host", after.encode("latin-1")), *_without(upstream.headers, b"host")]
    if after != before:
        old = before.encode("latin-1")
        if share.tells_upstream:
            headers = [*_without(headers, ORIGINAL_HOST), (ORIGINAL_HOST, old)]
        if append_xfh:
            headers = _with_forwarded_host(headers, old)
    return RequestHead(upstream.method, upstream.scheme, after, upstream.path, headers)


def _with_forwarded_host(headers: list[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    """The host appended to `x-forwarded-host`, unless it is the last one there already."""
    values = [value for name, value in headers if name.lower() == FORWARDED_HOST]
    hosts = b",".join(values).split(b",") if values else []
    if hosts and hosts[-1].strip() == host:
        return headers
    return [*_without(headers, FORWARDED_HOST), (FORWARDED_HOST, b",".join([*hosts, host]))]


def _without(headers: RawHeaders, name: bytes) -> RawHeaders:
    """The headers but for those of one (lower-case) name; the same object when there are none of it."""
    size = len(name)  # tells nearly all names apart, for less than lower-casing them
    for pair in headers:
        if len(pair[0]) == size and pair[0].lower() == name:
            return [pair for pair in headers if pair[0].lower() != name]
    return headers
