"""Routes of a service's own listener are found by the service's names."""

import pytest

from meshlib.engine.runtime import Runtime
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.sniffed import SniffedServices

HOST = "pay.default.svc.cluster.local"
NODE = "sidecar~10.0.0.1~app.default~default.svc.cluster.local"


def listener(name: str, address: str, port: int, routes: str, *, bound: bool = False) -> Listener:
    return Listener(name, (HttpConnectionManager(routes),), address, port, direction="OUTBOUND", bound=bound)


def table(name: str, cluster: str, *domains: str) -> RouteConfiguration:
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction(cluster))
    return RouteConfiguration(name, (VirtualHost(cluster, domains, (route,)),), ignore_port_in_host_matching=True)


def snapshot(host: str = HOST, *, address: str = "10.96.0.1", bound: bool = False) -> Snapshot:
    own = listener(f"{address}_8080", address, 8080, f"{host}:8080", bound=bound)
    return Snapshot({own.name: own}, {f"{host}:8080": table(f"{host}:8080", "pay", "*")})


def domains(found: Snapshot, host: str = HOST) -> tuple[str, ...]:
    return found.routes[f"{host}:8080"].virtual_hosts[0].domains


@pytest.mark.parametrize(
    "host, names",
    [
        (HOST, (HOST, f"{HOST}.", "pay", "pay.default", "pay.default.svc", "10.96.0.1")),
        ("pay.other.svc.cluster.local", ("pay.other.svc.cluster.local", "pay.other.svc.cluster.local.", "pay.other",
                                         "pay.other.svc", "10.96.0.1")),
        ("pay.example.com", ("pay.example.com", "pay.example.com.", "10.96.0.1")),
        ("pay.default.svc.elsewhere", ("pay.default.svc.elsewhere", "pay.default.svc.elsewhere.", "10.96.0.1")),
    ],
)  # fmt: skip
def test_the_names_of_a_service_as_its_callers_know_it(host: str, names: tuple[str, ...]) -> None:
    assert domains(SniffedServices.of_node(NODE).by_host(snapshot(host)), host) == names


def test_a_node_that_is_none_of_istio_s_knows_full_names_only() -> None:
    assert domains(SniffedServices.of_node("me").by_host(snapshot())) == (HOST, f"{HOST}.", "10.96.0.1")


@pytest.mark.parametrize("changes", [{"address": "0.0.0.0"}, {"address": "::"}, {"bound": True}])
def test_listeners_for_everybody_stay_as_they_are(changes: dict[str, bool]) -> None:
    given = snapshot(**changes)  # type: ignore[arg-type]
    assert SniffedServices.of_node(NODE).by_host(given) is given


def test_routes_that_have_not_changed_stay_the_same_object_so_that_plans_are_taken_over() -> None:
    services, given = SniffedServices.of_node(NODE), snapshot()
    first = services.by_host(given).routes[f"{HOST}:8080"]
    again = Snapshot(given.listeners, {**given.routes, "more": table("more", "more", "*")})
    assert services.by_host(again).routes[f"{HOST}:8080"] is first


def test_a_listener_without_a_port_of_its_own_is_for_calls_to_its_port_only() -> None:
    import random

    ports = [listener(f"0.0.0.0_{port}", "0.0.0.0", port, str(port)) for port in (80, 9080)]
    last = listener("virtualOutbound", "0.0.0.0", 15001, "all", bound=True)
    routes = {"80": table("80", "web", "pay"), "9080": table("9080", "api", "pay"), "all": table("all", "out", "*")}
    plan = Runtime(random.Random(1)).compile(Snapshot({each.name: each for each in (*ports, last)}, routes), None)

    def listener_of(authority: str) -> str:
        found = plan.find("http", authority)
        assert found is not None
        return found.listener

    assert listener_of("pay") == "0.0.0.0_80"
    assert listener_of("pay:9080") == "0.0.0.0_9080"
    assert listener_of("pay:1234") == listener_of("other:80") == "virtualOutbound"
