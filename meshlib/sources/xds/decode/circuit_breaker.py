"""Our circuit breaker, which xDS has no field for: from the metadata of a cluster or a route, or from a route's
`typed_per_filter_config`, under `meshlib.circuit_breaker`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from meshlib.model.circuit_breaker import CircuitBreaker, FallbackResponse
from meshlib.model.metadata import Metadata, Struct, Value
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import struct, type_name, unpack
from meshlib.sources.xds.decode.context import Context, join

BREAKER_NAMESPACE = "meshlib.circuit_breaker"
_STRUCT = "google.protobuf.Struct"
_FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"
_MODULES = {
    _STRUCT: "google.protobuf.struct_pb2",
    _FILTER_CONFIG: "envoy.config.route.v3.route_components_pb2",
}
_SHORTEST = 0.01  # seconds of a window
Read = Callable[[Value, str], Any]


def circuit_breaker(metadata: Metadata) -> CircuitBreaker | None:
    """The breaker of the metadata; None when there is no such namespace. Raises ResourceError."""
    if BREAKER_NAMESPACE not in dict(metadata.namespaces):
        return None
    return _breaker(metadata.namespace(BREAKER_NAMESPACE), f'metadata.filter_metadata["{BREAKER_NAMESPACE}"]')


def route_circuit_breaker(ctx: Context, message: Any, path: str, metadata: Metadata) -> CircuitBreaker | None:
    """The breaker of a route. Raises ResourceError."""
    where = join(path, f'metadata.filter_metadata["{BREAKER_NAMESPACE}"]')
    found = None
    if BREAKER_NAMESPACE in dict(metadata.namespaces):
        found = _breaker(metadata.namespace(BREAKER_NAMESPACE), where)
    if BREAKER_NAMESPACE in message.typed_per_filter_config:
        where = join(path, f'typed_per_filter_config["{BREAKER_NAMESPACE}"]')
        if found is not None:
            raise ResourceError(where, "is in the route's metadata too; say it once")
        found = _typed(message.typed_per_filter_config[BREAKER_NAMESPACE], where)
    if found is not None and message.WhichOneof("action") != "route":
        ctx.degraded(where, "the route forwards nothing, so there is nothing to break")
        return None
    return found


def _typed(typed_config: Any, path: str) -> CircuitBreaker | None:
    kind, message = unpack(typed_config, _MODULES, path)
    if kind == _FILTER_CONFIG and message is not None:  # so that Envoy may be told that it is optional
        return None if message.disabled else _typed(message.config, join(path, "config"))
    if message is None:
        raise ResourceError(path, f"must be a {_STRUCT}, is {type_name(typed_config.type_url) or 'empty'}")
    return _breaker(struct(message), path)


def _breaker(values: Struct, path: str) -> CircuitBreaker:
    known = {name: _reader(name, path)(value, join(path, name)) for name, value in values.items}
    policy = CircuitBreaker(**known)
    rates = policy.failure_rate is not None or policy.slow_call_rate is not None
    if policy.fail_max < 1 and not rates:
        raise ResourceError(join(path, "fail_max"), "must be at least 1 where no rate opens the breaker")
    if policy.window_type == "count" and (policy.window_size % 1 or policy.window_size < 1):
        where = join(path, "window_size")
        raise ResourceError(where, f"must be a whole number of calls, at least 1, is {policy.window_size:g}")
    return policy


def _reader(name: str, path: str) -> Read:
    reader = _READERS.get(name)
    if reader is None:
        raise ResourceError(join(path, name), f"is not known; valid are {', '.join(sorted(_READERS))}")
    return reader


def _number(value: Value, path: str) -> float:
    if not isinstance(value, float) or isinstance(value, bool) or math.isnan(value):
        raise ResourceError(path, "must be a number")
    return value


def _count(least: int) -> Read:
    def read(value: Value, path: str) -> int:
        number = _number(value, path)
        if number < least or not number.is_integer():
            raise ResourceError(path, f"must be a whole number of at least {least}, is {number:g}")
        return int(number)

    return read


def _seconds(value: Value, path: str) -> float:
    number = _number(value, path)
    if number < 0:
        raise ResourceError(path, f"must be a number of seconds, not negative, is {number:g}")
    return number


def _percent(value: Value, path: str) -> float:
    number = _number(value, path)
    if not 0 < number <= 100:
        raise ResourceError(path, f"must be a percentage above 0, is {number:g}")
    return number


def _positive(value: Value, path: str) -> float:
    number = _number(value, path)
    if not _SHORTEST <= number < math.inf:
        raise ResourceError(path, f"must be at least {_SHORTEST:g}, is {number:g}")
    return number


def _text(value: Value, path: str) -> str:
    if not isinstance(value, str):
        raise ResourceError(path, "must be text")
    return value


def _one_of(*words: str) -> Read:
    def read(value: Value, path: str) -> str:
        if value not in words:
            raise ResourceError(path, f"must be {' or '.join(words)}")
        return str(value)

    return read


def _fallback(value: Value, path: str) -> FallbackResponse:
    if not isinstance(value, Struct):
        raise ResourceError(path, "must be an object")
    known: dict[str, Any] = {}
    for name, item in value.items:
        where = join(path, name)
        reader = _FALLBACK.get(name)
        if reader is None:
            raise ResourceError(where, f"is not known; valid are {', '.join(sorted(_FALLBACK))}")
        known[name] = reader(item, where)
    return FallbackResponse(**known)


def _status(value: Value, path: str) -> int:
    number = _number(value, path)
    if not (number.is_integer() and 200 <= number <= 599):
        raise ResourceError(path, f"must be an HTTP status from 200 to 599, is {number:g}")
    return int(number)


def _grpc_status(value: Value, path: str) -> int:
    number = _number(value, path)
    if not (number.is_integer() and 0 <= number <= 16):
        raise ResourceError(path, f"must be a gRPC status from 0 to 16, is {number:g}")
    return int(number)


def _headers(value: Value, path: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Struct):
        raise ResourceError(path, "must be an object of names and values")
    found = tuple((name, _text(item, join(path, name))) for name, item in value.items)
    for name, text in found:
        if not name or not (name + text).isascii() or not (name + text).isprintable() or ":" in name or " " in name:
            raise ResourceError(join(path, name), "is no header: printable ASCII is")
    return found


_FALLBACK: dict[str, Read] = {
    "status": _status,
    "headers": _headers,
    "body": lambda value, path: _text(value, path).encode(),
    "grpc_status": _grpc_status,
}
_READERS: dict[str, Read] = {
    "fail_max": _count(0),
    "reset_timeout": _seconds,
    "success_threshold": _count(1),
    "half_open_permits": _count(1),
    "failure_rate": _percent,
    "slow_call_rate": _percent,
    "slow_call_duration": _seconds,
    "window_type": _one_of("count", "time"),
    "window_size": _positive,
    "minimum_calls": _count(1),
    "half_open_max_wait": _seconds,
    "ramp_up": _seconds,
    "ramp_up_from": _percent,
    "scope": _one_of("cluster", "endpoint"),
    "fallback": _fallback,
    "name": _text,
}
