"""ScopedRoutes of a connection manager, and ScopedRouteConfiguration (SRDS)."""

from __future__ import annotations

from typing import Any

from meshlib.model.report import ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.model.scoped_routes import HeaderFragment, ScopedRouteConfiguration, ScopedRoutes
from meshlib.sources.xds.decode.config_source import check_config_source
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.route import route_configuration

_SCOPED_ROUTES = fields(
    "name", "scope_key_builder", "rds_config_source", "scoped_route_configurations_list", "scoped_rds"
)
_SCOPED_RDS = fields(
    "scoped_rds_config_source", instead={"srds_resources_locator": "collections of scopes are not fetched"}
)
_SCOPE = fields(
    "name",
    "key",
    "route_configuration",
    "route_configuration_name",
    harmless={"on_demand": "the scope's routes are fetched before the first request that needs them"},
)


def scoped_routes(ctx: Context, message: Any, path: str) -> ScopedRoutes:
    """A validated `HttpConnectionManager.scoped_routes`; raises `UnsupportedError` where scopes cannot be found."""
    ctx.check_fields(message, path, _SCOPED_ROUTES)
    check_config_source(ctx, message.rds_config_source, join(path, "rds_config_source"))
    where = join(path, "scope_key_builder.fragments")
    fragments = tuple(
        _fragment(fragment, f"{where}[{index}]") for index, fragment in enumerate(message.scope_key_builder.fragments)
    )
    if message.WhichOneof("config_specifier") == "scoped_rds":
        _check_srds(ctx, message.scoped_rds, join(path, "scoped_rds"))
        return ScopedRoutes(message.name, fragments)
    inline = message.scoped_route_configurations_list.scoped_route_configurations
    where = join(path, "scoped_route_configurations_list.scoped_route_configurations")
    scopes = tuple(_inline(ctx, scope, f"{where}[{index}]") for index, scope in enumerate(inline))
    return ScopedRoutes(message.name, fragments, scopes)


def _check_srds(ctx: Context, message: Any, path: str) -> None:
    if message.srds_resources_locator:
        raise UnsupportedError(join(path, "srds_resources_locator"), _SCOPED_RDS.instead["srds_resources_locator"])
    ctx.check_fields(message, path, _SCOPED_RDS)
    check_config_source(ctx, message.scoped_rds_config_source, join(path, "scoped_rds_config_source"))


def _fragment(message: Any, path: str) -> HeaderFragment:
    extractor, where = message.header_value_extractor, join(path, "header_value_extractor")
    kind = extractor.WhichOneof("extract_type")
    if kind is None:
        raise ResourceError(where, "one of index, element is required")
    if kind == "element":
        element = extractor.element
        return HeaderFragment(extractor.name, extractor.element_separator, None, element.key, element.separator)
    if extractor.index and not extractor.element_separator:
        raise ResourceError(join(where, "index"), "must be 0 without an element_separator")
    return HeaderFragment(extractor.name, extractor.element_separator, extractor.index)


def _inline(ctx: Context, message: Any, path: str) -> ScopedRouteConfiguration:
    if message.route_configuration_name:
        where = join(path, "route_configuration_name")
        raise ResourceError(where, "is for scopes that come by SRDS; an inline scope has its routes inline")
    return scoped_route_configuration(ctx, message, path)


def scoped_route_configuration(ctx: Context, message: Any, path: str = "") -> ScopedRouteConfiguration:
    """A validated ScopedRouteConfiguration message."""
    ctx.check_fields(message, path, _SCOPE)
    inline = message.HasField("route_configuration")
    if inline == bool(message.route_configuration_name):
        raise ResourceError(path, "exactly one of route_configuration, route_configuration_name must be set")
    routes: RouteConfiguration | str = message.route_configuration_name
    if inline:
        routes = route_configuration(ctx, message.route_configuration, join(path, "route_configuration"))
    return ScopedRouteConfiguration(
        message.name, tuple(fragment.string_key for fragment in message.key.fragments), routes
    )
