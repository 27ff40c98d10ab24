"""Scoped routes and virtual hosts that come by themselves, decoded."""

from typing import Any

import pytest

from meshlib.model.listener import Listener
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteConfiguration, VirtualHost
from meshlib.model.scoped_routes import HeaderFragment, ScopedRouteConfiguration, ScopedRoutes
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import LISTENER, ROUTE_CONFIGURATION, SCOPED_ROUTE_CONFIGURATION, VIRTUAL_HOST
from parts import xds_resources as xds

BY_INDEX = {"header_value_extractor": {"name": "x", "index": 0}}


def decoded(message: dict[str, Any]) -> Decoded:
    """The type is told by what only it has."""
    known = {"key": SCOPED_ROUTE_CONFIGURATION, "virtual_hosts": ROUTE_CONFIGURATION, "domains": VIRTUAL_HOST}
    type_url = next((type_url for field, type_url in known.items() if field in message), LISTENER)
    return decode_message(xds.message(type_url, message))


def scope(name: str, *key: str, **routes: Any) -> dict[str, Any]:
    fragments = [{"string_key": part} for part in key]
    return {"name": name, "key": {"fragments": fragments}, **(routes or {"route_configuration": inline("inline")})}


def inline(name: str) -> dict[str, Any]:
    return xds.route_configuration(name)


def listener(*scopes: dict[str, Any], fragments: Any = (BY_INDEX,), **more: Any) -> dict[str, Any]:
    found = xds.api_listener("a")
    manager = found["api_listener"]["api_listener"]
    del manager["rds"]
    by = more or {"scoped_route_configurations_list": {"scoped_route_configurations": list(scopes)}}
    manager["scoped_routes"] = {"name": "s", "scope_key_builder": {"fragments": list(fragments)}, **by}
    return found


def routes(message: dict[str, Any]) -> ScopedRoutes:
    resource = decoded(message).resource
    assert isinstance(resource, Listener)
    found = resource.managers[0].routes
    assert isinstance(found, ScopedRoutes)
    return found


def test_inline_scopes_are_routes_by_key() -> None:
    element = {"name": "y", "element_separator": ";", "element": {"key": "k", "separator": "="}}
    message = listener(scope("one", "1", "a"), fragments=(BY_INDEX, {"header_value_extractor": element}))
    found = routes(message)
    assert found.fragments == (HeaderFragment("x", "", 0), HeaderFragment("y", ";", None, "k", "="))
    assert found.scopes is not None
    assert [(entry.name, entry.key) for entry in found.scopes] == [("one", ("1", "a"))]
    assert isinstance(found.scopes[0].routes, RouteConfiguration)
    references = decoded(message).references
    assert (references.clusters, references.scopes) == ({"payments"}, False)


def test_scopes_by_srds_are_all_there_are() -> None:
    message = listener(scoped_rds={"scoped_rds_config_source": {"ads": {}}}, rds_config_source={"ads": {}})
    assert routes(message).scopes is None
    assert decoded(message).references.scopes
    assert not decoded(message).issues


def test_a_scope_names_its_routes_or_has_them() -> None:
    found = decoded(scope("one", "1", route_configuration_name="r", on_demand=True))
    assert found.resource == ScopedRouteConfiguration("one", ("1",), "r")
    assert (found.references.routes, found.issues) == ({"r"}, ())
    assert decoded(scope("one", "1")).references.clusters == {"payments"}


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (listener(scope("a", "1", route_configuration_name="r")), "route_configuration_name"),
        (listener(scope("a", "1"), fragments=[{"header_value_extractor": {"name": "x", "index": 1}}]), "index"),
        (listener(scope("a", "1"), fragments=[{"header_value_extractor": {"name": "x"}}]), "header_value_extractor"),
        (listener(scope("a", "1"), fragments=[]), "fragments"),
        (listener(scope("a", "1"), fragments=[{}]), "fragments[0]"),
        (listener(scope("a")), "fragments"),
        (listener(scope("", "1")), "name"),
        (listener(), "scoped_route_configurations"),
        (scope("a", "1", route_configuration_name="r", route_configuration=inline("r")), ""),
        ({"name": "a", "key": {"fragments": [{"string_key": "1"}]}}, ""),
    ],
)
def test_what_envoy_refuses_is_refused(message: dict[str, Any], path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        decoded(message)
    assert refused.value.path.endswith(path)


def test_a_virtual_host_by_itself() -> None:
    host = inline("r")["virtual_hosts"][0]
    found = decoded({**host, "name": "r/a"})
    assert isinstance(found.resource, VirtualHost)
    assert (found.resource.name, found.references.clusters) == ("r/a", {"payments"})
    with pytest.raises(ResourceError, match="may stand once"):
        decoded({**host, "domains": ["a", "A"]})


def test_the_filter_of_on_demand_is_not_missed() -> None:
    from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2

    message = listener(scope("a", "1"))
    filters = message["api_listener"]["api_listener"]["http_filters"]
    kind = on_demand_pb2.OnDemand.DESCRIPTOR.full_name
    filters.insert(0, {"name": "on-demand", "typed_config": {"@type": f"type.googleapis.com/{kind}"}})
    assert decoded(message).issues == ()


def test_virtual_hosts_on_demand_are_for_routes_by_rds() -> None:
    message = listener(scope("a", "1", route_configuration={**inline("r"), "vhds": {"config_source": {"ads": {}}}}))
    assert [issue.path.rpartition(".")[2] for issue in decoded(message).issues] == ["vhds"]


def test_routes_with_virtual_hosts_on_demand_say_so() -> None:
    found = decoded({**xds.route_configuration("r"), "vhds": {"config_source": {"ads": {}}}})
    assert isinstance(found.resource, RouteConfiguration)
    assert (found.resource.vhds, found.references.hosts, found.issues) == (True, "r", ())
    elsewhere = {
        "api_config_source": {"api_type": "DELTA_GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "x"}}]}
    }
    assert [i.path for i in decoded({**xds.route_configuration("r"), "vhds": {"config_source": elsewhere}}).issues] == [
        "vhds.config_source.api_config_source"
    ]
