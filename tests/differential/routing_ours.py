"""What meshlib decides for a request, told as `Observed`. The engine's own code decides: calls run through the same."""

import random

from differential.routing_envoy import CLUSTERS, REQUEST_NOISE, RESPONSE_NOISE
from differential.routing_generate_matches import RUNTIME
from differential.routing_observed import ROUTE_HEADER, Arrived, Ask, Observed, joined
from meshlib.context import CallHead
from meshlib.engine.decision import Answer, Forward, Refusal, decide, rewrite_authority, upstream_head
from meshlib.engine.route import Share
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.metadata import Struct
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Snapshot

ECHO_HEADERS = [(b"x-echo", b"1"), (b"x-resp-a", b"upstream")]
Headers = list[tuple[bytes, bytes]]


class OurRouting:
    """A compiled configuration to ask; `ResourceError` when it does not compile."""

    def __init__(self, config: RouteConfiguration, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        clusters = {name: _cluster(name) for name in CLUSTERS}
        snapshot = Snapshot(routes={config.name: config}, clusters=clusters, runtime=Struct.of(RUNTIME))
        self._plan = Runtime(self._rng).compile(snapshot, None)

    def ask(self, ask: Ask) -> Observed:
        head = head_of(ask)
        host = self._plan.find(head.scheme, ask.authority)
        if host is None:
            return Observed("", 404)
        match decide(self._plan, host, head, self._rng):
            case Forward() as forward:
                return _forwarded(forward, head)
            case Answer(share=share, status=status, location=location):
                return _answered(share, head, status, location, [])
            case Refusal(flag=ResponseFlag.NC, route=route) if route is not None:
                return _answered(route.shares[0], head, route.config.action.cluster_not_found_response_code, "", [])
            case Refusal():
                return Observed("", 404)


def head_of(ask: Ask) -> RequestHead:
    headers = [("Host", ask.authority), *ask.headers]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    scheme = "https" if ("x-forwarded-proto", "https") in ask.headers else "http"  # as Envoy takes it for the scheme
    return CallHead(ask.method, scheme, ask.authority, ask.path, raw)


def _cluster(name: str) -> Cluster:
    endpoint = LbEndpoint(Address("127.0.0.1", 1), hostname=f"{name}.host")
    return Cluster(name, load_assignment=ClusterLoadAssignment(name, (LocalityLbEndpoints((endpoint,)),)))


def _forwarded(forward: Forward, head: RequestHead) -> Observed:
    upstream = upstream_head(forward, head)
    mutated = RequestHead(upstream.method, upstream.scheme, head.authority, upstream.path, upstream.headers)
    name = forward.cluster_name
    append_xfh = forward.action.append_x_forwarded_host
    upstream = rewrite_authority(forward.share, head, upstream, f"{name}.host", append_xfh)
    arrived = Arrived(name, upstream.path, upstream.authority, joined(_text(upstream.headers), REQUEST_NOISE))
    return _answered(forward.share, mutated, 200, "", ECHO_HEADERS, arrived)


def _answered(
    share: Share, head: RequestHead, status: int, location: str, headers: Headers, arrived: Arrived | None = None
) -> Observed:
    mutate = share.response_headers
    pairs = _text(mutate(headers, head) if mutate else headers)
    route = dict(pairs).get(ROUTE_HEADER, "")
    return Observed(route, status, location, joined(pairs, RESPONSE_NOISE), arrived)


def _text(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
