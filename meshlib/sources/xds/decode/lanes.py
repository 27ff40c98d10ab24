"""Lanes and nearby routing: what the metadata of a cluster says of them (`meshlib.lanes`, `meshlib.nearby`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshlib.model.lanes import Lane, LaneGroup, LaneRamp, Nearby
from meshlib.model.matchers import RouteMatch
from meshlib.model.metadata import Metadata, Struct, Value
from meshlib.model.report import ResourceError
from meshlib.model.route import HashPolicy
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.matchers import route_match

LANES, NEARBY = "meshlib.lanes", "meshlib.nearby"
LEVELS = ("sub_zone", "zone", "region", "all")
_PATHS = ("prefix", "path", "safe_regex", "path_separated_prefix", "path_match_policy")
_KEYS: Mapping[str, Any] = {"header": "header", "cookie": "cookie", "query_parameter": "query_parameter"}


def lane_group(ctx: Context, metadata: Metadata) -> LaneGroup | None:
    """The lanes of a cluster, None without the namespace. Raises ResourceError."""
    if LANES not in dict(metadata.namespaces):
        return None
    path = f'metadata.filter_metadata["{LANES}"]'
    found = _members(metadata.namespace(LANES), path, ("group", "label", "fallback", "lanes"))
    fallback = found.get("fallback", "PERMISSIVE")
    if fallback not in ("PERMISSIVE", "STRICT"):
        raise ResourceError(join(path, "fallback"), f"must be PERMISSIVE or STRICT, is {fallback!r}")
    items = found.get("lanes", ())
    if not isinstance(items, tuple):
        raise ResourceError(join(path, "lanes"), "must be a list")
    lanes = tuple(_lane(ctx, item, f"{path}.lanes[{index}]") for index, item in enumerate(items))
    names = [lane.name for lane in lanes]
    if len(set(names)) < len(names):
        raise ResourceError(join(path, "lanes"), "two lanes have the same name")
    label = _text(found.get("label", "lane"), join(path, "label"))
    return LaneGroup(_name(found.get("group"), join(path, "group")), label, fallback == "STRICT", lanes)


def nearby(metadata: Metadata) -> Nearby | None:
    """The nearby routing of a cluster, None without the namespace. Raises ResourceError."""
    if NEARBY not in dict(metadata.namespaces):
        return None
    path = f'metadata.filter_metadata["{NEARBY}"]'
    found = _members(metadata.namespace(NEARBY), path, ("level", "max_level", "strict"))
    level, farthest = (
        _level(found.get(name, default), join(path, name))
        for name, default in (("level", "zone"), ("max_level", "all"))
    )
    strict = found.get("strict", False)
    if not isinstance(strict, bool):
        raise ResourceError(join(path, "strict"), "must be true or false")
    if farthest < level:
        raise ResourceError(join(path, "max_level"), "must not be nearer than level")
    return Nearby(level, farthest, strict)


def _lane(ctx: Context, value: Value, path: str) -> Lane:
    found = _members(value, path, ("name", "match", "share", "by", "ramp"))
    matches = found.get("match", ())
    if not isinstance(matches, tuple):
        raise ResourceError(join(path, "match"), "must be a list")
    return Lane(
        _name(found.get("name"), join(path, "name")),
        tuple(_match(ctx, item, f"{path}.match[{index}]") for index, item in enumerate(matches)),
        _number(found.get("share", 100.0), join(path, "share"), 0.0, 100.0),
        _by(found["by"], join(path, "by")) if "by" in found else (),
        _ramp(found["ramp"], join(path, "ramp")) if "ramp" in found else None,
    )


def _match(ctx: Context, value: Value, path: str) -> RouteMatch:
    """`RouteMatch` in proto3 JSON; without a path, any path."""
    from envoy.config.route.v3.route_components_pb2 import RouteMatch as Message
    from google.protobuf.json_format import ParseDict, ParseError

    if not isinstance(value, Struct):
        raise ResourceError(path, "must be an object")
    document = {"prefix": "/"} if not any(name in _PATHS for name, _ in value.items) else {}
    try:
        return route_match(ctx, ParseDict({**document, **_json(value)}, Message()), path)
    except ParseError as error:
        raise ResourceError(path, f"is no RouteMatch: {error}") from None
    except UnsupportedError as error:
        raise ResourceError(error.path, error.reason) from None


def _by(value: Value, path: str) -> tuple[HashPolicy, ...]:
    found = _members(value, path, (*_KEYS, "source_ip"))
    if len(found) != 1:
        raise ResourceError(path, f"must say one of {', '.join((*_KEYS, 'source_ip'))}")
    ((kind, name),) = found.items()
    if kind == "source_ip":
        if name is not True:
            raise ResourceError(join(path, kind), "must be true")
        return (HashPolicy("source_ip"),)
    text = _text(name, join(path, kind))
    return (HashPolicy(_KEYS[kind], text.lower() if kind == "header" else text),)


def _ramp(value: Value, path: str) -> LaneRamp:
    found = _members(value, path, ("start", "seconds", "curvature"))
    return LaneRamp(
        _moment(found.get("start"), join(path, "start")),
        _number(found.get("seconds"), join(path, "seconds"), 0.001, math.inf),
        _number(found.get("curvature", 1.0), join(path, "curvature"), 0.01, 100.0),
    )


def _moment(value: Value, path: str) -> float:
    """A time of RFC 3339 with its zone, or seconds of the epoch."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return moment.timestamp()
        raise ResourceError(path, f"{value!r} is no time like 2026-11-21T12:00:00Z")
    return _number(value, path, 0.0, math.inf)


def _members(value: Value, path: str, known: tuple[str, ...]) -> dict[str, Value]:
    if not isinstance(value, Struct):
        raise ResourceError(path, "must be an object")
    for name, _ in value.items:
        if name not in known:
            raise ResourceError(join(path, name), f"is not known; valid are {', '.join(known)}")
    return dict(value.items)


def _level(value: Value, path: str) -> int:
    if value in LEVELS:
        return LEVELS.index(str(value))
    raise ResourceError(path, f"must be one of {', '.join(LEVELS)}, is {value!r}")


def _number(value: Value, path: str, least: float, most: float) -> float:
    if isinstance(value, float) and not isinstance(value, bool) and least <= value <= most and math.isfinite(value):
        return value
    wanted = f"{least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
    raise ResourceError(path, f"must be a number, {wanted}" + ("" if value is None else f"; is {value!r}"))


def _text(value: Value, path: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise ResourceError(path, "must be a text" if value is not None else "is missing")


def _name(value: Value, path: str) -> str:
    """What can stand in a member of baggage and before a slash."""
    text = _text(value, path)
    if all(letter.isalnum() or letter in "-._" for letter in text) and text.isascii():
        return text
    raise ResourceError(path, f"{text!r} may hold only letters, digits, '-', '.' and '_'")


def _json(value: Any) -> Any:
    if isinstance(value, Struct):
        return {name: _json(item) for name, item in value.items}
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
