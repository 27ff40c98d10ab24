"""Scoped routes: headers choose the route configuration (`envoy.config.route.v3.ScopedRouteConfiguration`)."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.route import RouteConfiguration

__all__ = ["HeaderFragment", "ScopedRouteConfiguration", "ScopedRoutes"]


@dataclass(frozen=True, slots=True)
class HeaderFragment:
    """One part of a request's scope key, from the first value of the header `name`.

    The value is split by `separator` (empty: it is one element). `index` then says which element is the part; without
    it the part is what follows `key_separator` in the first element that has `key` before it.
    """

    name: str
    separator: str = ""
    index: int | None = None
    key: str = ""
    key_separator: str = ""


@dataclass(frozen=True, slots=True)
class ScopedRouteConfiguration:
    """The routes of the requests whose scope key is `key`: inline, or the name of those that come by RDS."""

    name: str
    key: tuple[str, ...]
    routes: RouteConfiguration | str


@dataclass(frozen=True, slots=True)
class ScopedRoutes:
    """How a connection manager chooses among scopes. `scopes`: None where they come by SRDS, which are then all those
    that the control plane sends. Of two inline scopes with one name or one key the last counts, as in Envoy.
    """

    name: str
    fragments: tuple[HeaderFragment, ...]
    scopes: tuple[ScopedRouteConfiguration, ...] | None = None
