"""Whole calls by generated routes: many virtual hosts in one bootstrap, a thousand requests and more over sockets.

Without `x-forwarded-proto`, by which Envoy takes the scheme of a request: a client's is that of its URL.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from differential.calls_twin import Answer, Call, Twin, bootstrap, cluster
from differential.routing_differences import comparable
from differential.routing_envoy import CLUSTERS, REQUEST_NOISE, RESPONSE_NOISE
from differential.routing_generate import asks, configurations, named, route_actions
from differential.routing_observed import ROUTE_HEADER, Arrived, Ask, Observed, joined
from differential.routing_render import route_configuration
from meshlib.explain import Explainer
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteConfiguration, VirtualHost
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply, Request
from parts.fixtures import Servers

REQUESTS_PER_HOST = 10
MORE = range(2, 10)
"""Seeds of a soak."""


def generated(seed: int, count: int) -> Iterator[tuple[VirtualHost, list[Ask]]]:
    """Virtual hosts with a domain each, and requests for them; the same ones every time."""
    rng = random.Random(seed)
    for number in range(count):
        config = configurations().by(rng)
        host, domain = config.virtual_hosts[0], f"v{number}.test"
        last = named("last", Route(RouteMatch(PathMatcher("prefix", "/")), route_actions().by(rng)))
        host = replace(host, name=f"v{number}", domains=(domain,), routes=(*host.routes, last))
        asked = asks(replace(config, virtual_hosts=(host,)))
        requests = [asked.by(rng) for _ in range(REQUESTS_PER_HOST)]
        yield host, [replace(ask, authority=domain, headers=_plain(ask)) for ask in requests]


def _plain(ask: Ask) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in ask.headers if pair[0] != "x-forwarded-proto")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "count"), [(1, 100), *(pytest.param(n, 250, marks=pytest.mark.slow) for n in MORE)])
def test_generated_routes_carry_the_same_calls(
    seed: int,
    count: int,
    envoy: Callable[..., EnvoyServer],
    fast_backend: Callable[..., FastBackend],
    servers: Servers,
) -> None:
    hosts = list(generated(seed, count))
    backends = {name: fast_backend(name, echo(name)) for name in CLUSTERS}
    config = route_configuration(RouteConfiguration("routes", tuple(host for host, _ in hosts)))
    twin = Twin(
        envoy,
        servers.folder("twin"),
        bootstrap(config["virtual_hosts"], [named_cluster(name, server.port) for name, server in backends.items()]),
    )
    calls = [(host, ask) for host, requests in hosts for ask in requests]
    differences: list[str] = []
    refused: dict[str, str] = {}
    answered, forwarded = 0, 0
    for number, (host, ask) in enumerate(calls):
        call = Call(str(number), ask.path, ask.headers, ask.method, ask.authority)
        answer, result = twin.ours(call), explained(twin.explainer, call)
        theirs, ours = observed(twin.theirs(call)), observed(answer)
        if answer.flag:
            refused[call.id] = answer.flag
            theirs = Observed("", theirs.status)  # Envoy's refusal is a response, with headers; ours is an exception
        answered += theirs.arrived is None
        forwarded += theirs.arrived is not None
        theirs, ours, said = (comparable(ask, seen) for seen in (theirs, ours, result))
        if theirs != ours:
            differences.append(f"{ask}\n  Envoy {theirs}\n  mesh  {ours}\n  {host}")
        if said != without_upstreams_headers(theirs):
            differences.append(f"{ask}\n  Envoy     {theirs}\n  explained {said}\n  {host}")
    flags = twin.flags(len(calls))
    twin.close()
    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences[:3])
    assert {call: flags[call] for call in refused} == {call: {flag} for call, flag in refused.items()}

    assert answered > 3 * count
    assert forwarded > 3 * count
    assert len(refused) > count


def named_cluster(name: str, port: int) -> dict[str, object]:
    found = cluster(name, [port])
    found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] = f"{name}.host"
    return found


def echo(name: str) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        seen = {"cluster": name, "target": request.target, "headers": request.headers}
        return Reply(200, json.dumps(seen).encode(), (("x-echo", "1"), ("x-resp-a", "upstream")))

    return reply


def observed(answer: Answer) -> Observed:
    """The answer in the words of the routing tests."""
    named = dict(answer.headers)
    seen = json.loads(answer.body) if "x-echo" in named and answer.body else None
    arrived = None
    if seen is not None:
        pairs = [(name, value) for name, value in seen["headers"]]
        host = next((value for name, value in pairs if name == "host"), "")
        arrived = Arrived(seen["cluster"], seen["target"], host, joined(pairs, REQUEST_NOISE | {"x-call-id"}))
    headers = joined(answer.headers, RESPONSE_NOISE)
    return Observed(named.get(ROUTE_HEADER, ""), answer.status, named.get("location", ""), headers, arrived)


def explained(explainer: Explainer, call: Call) -> Observed:
    """What `meshlib explain` says of a call, in the same words; the upstream's own response headers it cannot know."""
    result = explainer.explain(call.method, f"http://{call.authority}{call.path}", call.sent)
    if result.response_flag is not None:
        return Observed("", result.failure_status or 503)
    headers = [(name, value) for name, value in result.response_headers]
    answer = result.redirect or result.direct_response
    if answer is not None:
        location = answer.get("location") or dict(headers).get("location", "")
        return Observed(
            dict(headers).get(ROUTE_HEADER, ""), answer["status"], location, joined(headers, RESPONSE_NOISE)
        )
    assert result.cluster is not None
    assert result.path is not None
    pairs = [(name, value) for name, value in result.headers]
    arrived = Arrived(result.cluster, result.path, result.authority or "", joined(pairs, REQUEST_NOISE | {"x-call-id"}))
    return Observed((result.route or "").partition("/")[2], 200, arrived=arrived)


def without_upstreams_headers(seen: Observed) -> Observed:
    return replace(seen, headers=()) if seen.arrived is not None else seen
