"""Every route of a virtual host with its place: those it lists, and those its matcher leads to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.type_registry import message_class

_ROUTE, _ROUTE_LIST = "envoy.config.route.v3.Route", "envoy.config.route.v3.RouteList"
_MAPS = ("exact_match_map", "prefix_match_map")


def routes_of(host: Any) -> Iterator[tuple[Any, FieldPath]]:
    """Messages and paths of the routes of a VirtualHost message."""
    for index, route in enumerate(host.routes):
        yield route, ("routes", index)
    if host.HasField("matcher"):
        yield from _of_matcher(host.matcher, ("matcher",))


def _of_matcher(matcher: Any, path: FieldPath) -> Iterator[tuple[Any, FieldPath]]:
    for index, line in enumerate(matcher.matcher_list.matchers):
        yield from _led_to(line.on_match, (*path, "matcher_list", "matchers", index, "on_match"))
    for kind in _MAPS:
        entries = getattr(matcher.matcher_tree, kind).map
        for key in sorted(entries):
            yield from _led_to(entries[key], (*path, "matcher_tree", kind, "map", key))
    if matcher.HasField("on_no_match"):
        yield from _led_to(matcher.on_no_match, (*path, "on_no_match"))


def _led_to(on_match: Any, path: FieldPath) -> Iterator[tuple[Any, FieldPath]]:
    if on_match.WhichOneof("on_match") == "matcher":
        yield from _of_matcher(on_match.matcher, (*path, "matcher"))
        return
    packed, where = on_match.action.typed_config, (*path, "action", "typed_config")
    name = packed.type_url.rpartition("/")[2]
    if name not in (_ROUTE, _ROUTE_LIST):
        return
    cls: Any = message_class(name)
    found = cls.FromString(packed.value)
    if name == _ROUTE:
        yield found, where
        return
    for index, route in enumerate(found.routes):
        yield route, (*where, "routes", index)
