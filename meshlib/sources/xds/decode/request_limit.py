"""The filter `meshlib.rate_limit`, which comes as a TypedStruct."""

from __future__ import annotations

from typing import Any

from meshlib.model.limiters import Bucket, ConcurrencyLimit, Limiter, RequestLimit, UniformRate, WarmUp
from meshlib.model.metadata import Struct, Value
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import struct, typed_struct
from meshlib.sources.xds.decode.context import Context, join

REQUEST_LIMIT_TYPE = "meshlib.rate_limit"
_LIMITERS: dict[str, tuple[Any, dict[str, type]]] = {
    "bucket": (Bucket, {"rate": float, "burst": float}),
    "uniform_rate": (UniformRate, {"rate": float, "max_wait": float}),
    "warm_up": (WarmUp, {"rate": float, "period": float, "cold_factor": float}),
    "concurrency": (ConcurrencyLimit, {"max_in_flight": int}),
}
_OPTIONS: dict[str, type] = {
    "name": str,
    "key": str,
    "max_keys": int,
    "status": int,
    "rate_limited_as_resource_exhausted": bool,
    "retry_after": bool,
    "headers": str,
}


def request_limit(ctx: Context, typed_config: Any, path: str) -> RequestLimit:
    """`{name, bucket | uniform_rate | warm_up | concurrency, key, ...}`. Raises `ResourceError`."""
    message, where = typed_struct(typed_config, path), join(path, "value")
    if message is None:
        raise ResourceError(path, f"{REQUEST_LIMIT_TYPE} is a TypedStruct")
    found = dict(struct(message).items)
    options = {name: found.pop(name) for name in _OPTIONS if name in found}
    kinds = [kind for kind in _LIMITERS if kind in found]
    if len(kinds) != 1:
        raise ResourceError(where, f"needs one of {', '.join(_LIMITERS)}")
    limiter = _limiter(kinds[0], found.pop(kinds[0]), join(where, kinds[0]))
    for name in found:
        ctx.degraded(join(where, name), f"{REQUEST_LIMIT_TYPE} has no field of this name")
    given = {name: _of(value, _OPTIONS[name], join(where, name)) for name, value in options.items()}
    try:
        return RequestLimit(**{"name": REQUEST_LIMIT_TYPE, **given}, limiter=limiter)
    except ValueError as error:
        raise ResourceError(where, str(error)) from None


def _limiter(kind: str, value: Value, path: str) -> Limiter:
    cls, members = _LIMITERS[kind]
    if not isinstance(value, Struct):
        raise ResourceError(path, "must be an object")
    given = dict(value.items)
    if unknown := given.keys() - members.keys():
        raise ResourceError(join(path, min(unknown)), f"{kind} has {', '.join(members)}")
    if (first := next(iter(members))) not in given:
        raise ResourceError(join(path, first), "is required")
    try:
        made: Limiter = cls(**{name: _of(item, members[name], join(path, name)) for name, item in given.items()})
    except ValueError as error:
        raise ResourceError(path, str(error)) from None
    return made


def _of(value: Value, kind: type, path: str) -> Any:
    """A value of a kind; JSON's numbers are floats."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ResourceError(path, f"must be {'a whole number' if kind is int else kind.__name__}, is {value!r}")
    return value
