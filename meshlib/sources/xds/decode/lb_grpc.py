"""Policies in gRPC's own words: a TypedStruct named like a policy of gRPC's service config, with that policy's JSON.

So control planes send what has no message in Envoy's API (gRFC A52). Names and fields are gRPC's; a field that is not
read is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from meshlib.model.lb import (
    ClientSideWeightedRoundRobin,
    LbPolicy,
    LeastRequest,
    PickFirst,
    RandomSubsetting,
    RingHash,
    RoundRobin,
)
from meshlib.model.metadata import Struct, Value
from meshlib.model.report import ResourceError
from meshlib.model.route import HashPolicy
from meshlib.sources.xds.decode.context import Context, join

Said: TypeAlias = "dict[str, Value]"
Read = Callable[[Said, str], LbPolicy]

_MOST_CHOICES = 10
_LARGEST_RING = 4096  # gRPC's limit on the client's side (gRFC A42)


def grpc_policy(ctx: Context, name: str, config: Struct, path: str) -> tuple[LbPolicy, RandomSubsetting | None] | None:
    """A policy, and the subsetting around it; None for a name that is not gRPC's."""
    said = dict(config.items)
    if name in _SUBSETTING:
        return _subsetting(ctx, said, path)
    if name not in _POLICIES:
        return None
    found = _POLICIES[name](said, path)
    for left in said:
        ctx.degraded(join(path, left), "not applied in this version")
    return found, None


def _subsetting(ctx: Context, said: Said, path: str) -> tuple[LbPolicy, RandomSubsetting | None] | None:
    size = _whole(said, "subsetSize", 0, path)
    if size < 1:
        raise ResourceError(join(path, "subsetSize"), "must be at least 1")
    children = said.pop("childPolicy", ())
    for index, child in enumerate(children if isinstance(children, tuple) else ()):
        for name, config in child.items if isinstance(child, Struct) else ():
            where = f"{join(path, 'childPolicy')}[{index}].{name}"
            found = grpc_policy(ctx, name, config if isinstance(config, Struct) else Struct(), where)
            if found is not None:
                return found[0], RandomSubsetting(size)
    raise ResourceError(join(path, "childPolicy"), "names no policy that is known")


def _ring_hash(said: Said, path: str) -> LbPolicy:
    smallest = min(_whole(said, "minRingSize", 1024, path), _LARGEST_RING)
    largest = min(_whole(said, "maxRingSize", _LARGEST_RING, path), _LARGEST_RING)
    if not 1 <= smallest <= largest:
        raise ResourceError(join(path, "minRingSize"), f"must be between 1 and maxRingSize ({largest}), is {smallest}")
    header = str(said.pop("requestHashHeader", "")).lower()
    if header.endswith("-bin"):
        raise ResourceError(join(path, "requestHashHeader"), "must not be a binary header (gRFC A76)")
    return RingHash(smallest, largest, hash_policies=(HashPolicy("header", header),) if header else ())


def _least_request(said: Said, path: str) -> LbPolicy:
    choices = _whole(said, "choiceCount", 2, path)
    if choices < 2:
        raise ResourceError(join(path, "choiceCount"), f"must be at least 2, is {choices}")
    return LeastRequest(min(choices, _MOST_CHOICES))


def _weighted(said: Said, path: str) -> LbPolicy:
    policy = ClientSideWeightedRoundRobin()
    out_of_band = said.pop("enableOobLoadReport", False) is True
    period = _seconds(said, "oobReportingPeriod", 10.0, path)
    return replace(
        policy,
        blackout_period=_seconds(said, "blackoutPeriod", policy.blackout_period, path),
        weight_expiration_period=_seconds(said, "weightExpirationPeriod", policy.weight_expiration_period, path),
        weight_update_period=max(0.1, _seconds(said, "weightUpdatePeriod", policy.weight_update_period, path)),
        error_utilization_penalty=_number(said, "errorUtilizationPenalty", policy.error_utilization_penalty, path),
        oob_reporting_period=period if out_of_band else None,
    )


_POLICIES: dict[str, Read] = {
    "round_robin": lambda said, path: RoundRobin(),
    "pick_first": lambda said, path: PickFirst(said.pop("shuffleAddressList", False) is True),
    "ring_hash_experimental": _ring_hash,
    "least_request_experimental": _least_request,
    "weighted_round_robin": _weighted,
}
_SUBSETTING = ("random_subsetting", "random_subsetting_experimental")


def _number(said: Said, name: str, default: float, path: str) -> float:
    value = said.pop(name, default)
    try:
        found = float(value) if isinstance(value, float | str) else default
    except ValueError:
        found = -1.0
    if not 0 <= found < 2**53:
        raise ResourceError(join(path, name), f"is no number: {value!r}")
    return found


def _whole(said: Said, name: str, default: int, path: str) -> int:
    found = _number(said, name, float(default), path)
    if found != int(found):
        raise ResourceError(join(path, name), f"is no whole number: {found}")
    return int(found)


def _seconds(said: Said, name: str, default: float, path: str) -> float:
    """A duration in JSON: `10s`."""
    value: Any = said.get(name)
    if isinstance(value, str):
        said[name] = value.removesuffix("s")
    return _number(said, name, default, path)
