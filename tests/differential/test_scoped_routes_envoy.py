"""Scoped routes: the same scopes and requests through Envoy and through us."""

import http.client
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from meshlib.engine.decision import Answer, decide
from meshlib.engine.runtime import Runtime
from meshlib.explain import Explainer
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteConfiguration, VirtualHost
from meshlib.model.scoped_routes import HeaderFragment, ScopedRouteConfiguration, ScopedRoutes
from meshlib.model.snapshot import Snapshot
from parts.envoy_server import EnvoyServer

Json = dict[str, Any]
Headers = tuple[tuple[str, str], ...]
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"

FRAGMENTS: tuple[tuple[HeaderFragment, ...], ...] = (
    (HeaderFragment("x", index=0),),
    (HeaderFragment("X", ",", 1),),
    (HeaderFragment("x", "::", 0), HeaderFragment("y", index=0)),
    (HeaderFragment("x", ";", key="k", key_separator="="),),
    (HeaderFragment("x", key="k", key_separator="=="),),
    (HeaderFragment("host", index=0),),
    (HeaderFragment(":authority", ".", 0), HeaderFragment(":path", "/", 1)),
    (HeaderFragment(":method", index=0),),
)
VALUES = (
    "a",
    "",
    "A",
    "b",
    "a,b",
    ",a",
    "a::b",
    "::a",
    "k=a",
    "j=b;k=a",
    "k=b;k=a",
    "k",
    "k=a=b",
    "k==a",
    "K=a",
    "b,a,c",
)
KEYS = ("a", "b", "", "a=b", "=a", "host", "GET", "p")
HOSTS = ("host.test", "only.test")


def scopes(size: int) -> tuple[ScopedRouteConfiguration, ...]:
    """Every key of that many parts, some twice, and one with a part too many. Not all have the second host."""
    keys = [*itertools.product(KEYS, repeat=size), ("a",) * (size + 1), ("b",) * size]
    return tuple(scope(f"s{number}", key) for number, key in enumerate(keys))


def scope(name: str, key: tuple[str, ...]) -> ScopedRouteConfiguration:
    domains = HOSTS if key[0] != "b" else HOSTS[:1]
    route = Route(RouteMatch(PathMatcher("prefix", "/p")), DirectResponseAction(200, name.encode()))
    host = VirtualHost(f"host-{name}", domains, (route,))
    return ScopedRouteConfiguration(name, key, RouteConfiguration(f"routes-{name}", (host,)))


def requests() -> list[tuple[str, str, Headers]]:
    """Host, path and headers."""
    found: list[tuple[str, str, Headers]] = []
    for host, x in itertools.product(HOSTS, VALUES):
        found += [(host, "/p", (("x", x),)), (host, "/p", (("x", x), ("x", "a"))), (host, "/p", (("x", x), ("y", "b")))]
    return [*found, *((host, path, ()) for host in (*HOSTS, "host.other") for path in ("/p", "/q", "/p/q"))]


def test_scopes_choose_the_same_routes_as_in_envoy(envoy: Callable[..., EnvoyServer]) -> None:
    server = envoy({"static_resources": {"listeners": [_listener(i, parts) for i, parts in enumerate(FRAGMENTS)]}})
    differences, answers, rng = [], set(), random.Random(1)
    for number, fragments in enumerate(FRAGMENTS):
        explainer = Explainer(_snapshot(fragments), reject_unknown=True)
        plan = Runtime(rng).compile(_snapshot(fragments), None)
        connection = http.client.HTTPConnection(server.host, server.listener_port(f"l{number}"), timeout=10)
        for host, path, headers in requests():
            theirs = _asked(connection, host, path, headers)
            raw = [(name.encode(), value.encode()) for name, value in headers]
            head = RequestHead("GET", "http", host, path, raw)
            said = explainer.explain_head(head)
            ours = said.direct_response["body"] if said.direct_response else str(said.response_flag)
            found = plan.find("http", host)
            decision = None if found is None else decide(plan, found, head, rng)
            decided = decision.body.decode() if isinstance(decision, Answer) else "NR"
            answers.add(theirs)
            if (ours, decided) != (theirs, theirs):
                differences.append((fragments, host, path, headers, theirs, ours))
        connection.close()
    assert not differences
    assert len(answers) >= 10
    assert "NR" in answers


def _asked(connection: http.client.HTTPConnection, host: str, path: str, headers: Headers) -> str:
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in (("host", host), *headers):
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    return body if response.status == 200 else {404: "NR"}.get(response.status, str(response.status))


def _snapshot(fragments: Sequence[HeaderFragment]) -> Snapshot:
    routes = ScopedRoutes("s", tuple(fragments), scopes(len(fragments)))
    listener = Listener("l", (HttpConnectionManager(routes),), port=80, direction="OUTBOUND")
    return Snapshot({"l": listener})


def _listener(number: int, fragments: Sequence[HeaderFragment]) -> Json:
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "scoped_routes": {
            "name": "s",
            "scope_key_builder": {"fragments": [{"header_value_extractor": _extractor(part)} for part in fragments]},
            "scoped_route_configurations_list": {
                "scoped_route_configurations": [_scope(entry) for entry in scopes(len(fragments))]
            },
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"}}],
    }
    return {
        "name": f"l{number}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _extractor(part: HeaderFragment) -> Json:
    how: Json = {"index": part.index}
    if part.index is None:
        how = {"element": {"key": part.key, "separator": part.key_separator}}
    return {"name": part.name, "element_separator": part.separator, **how}


def _scope(entry: ScopedRouteConfiguration) -> Json:
    assert isinstance(entry.routes, RouteConfiguration)
    (host,) = entry.routes.virtual_hosts
    answer = {"status": 200, "body": {"inline_string": entry.name}}
    route = {"match": {"prefix": "/p"}, "direct_response": answer}
    hosts = [{"name": host.name, "domains": list(host.domains), "routes": [route]}]
    return {
        "name": entry.name,
        "key": {"fragments": [{"string_key": part} for part in entry.key]},
        "route_configuration": {"name": entry.routes.name, "virtual_hosts": hosts},
    }
