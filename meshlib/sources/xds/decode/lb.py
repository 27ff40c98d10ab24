"""Policies by hash, as `lb_config` and the extensions say them alike; and those that are not here."""

from __future__ import annotations

import math
from typing import Any

from meshlib.model.lb import Maglev, RingHash, UnsupportedLbPolicy
from meshlib.model.report import ResourceError
from meshlib.model.route import HashPolicy
from meshlib.sources.xds.decode.common import enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.hash_policy import hash_policies

_INSTEAD = "not supported; requests are balanced round robin instead"

_RING_HASH = fields(
    "minimum_ring_size",
    "maximum_ring_size",
    "hash_function",
    "use_hostname_for_hashing",
    "hash_balance_factor",
    "consistent_hashing_lb_config",
    "locality_weighted_lb_config",
)
_MAGLEV = fields("table_size", "consistent_hashing_lb_config", "locality_weighted_lb_config")
_CONSISTENT_HASHING = fields("use_hostname_for_hashing", "hash_balance_factor", "hash_policy")
_MAX_RING = 8_388_608
_MAX_TABLE = 5_000_011

Hashing = tuple[bool, int, tuple[HashPolicy, ...]]
"""`use_hostname_for_hashing`, `hash_balance_factor`, and the hash policies of the balancer's own."""

NO_HASHING: Hashing = (False, 0, ())


def ring_hash(ctx: Context, message: Any, path: str, hashing: Hashing) -> RingHash:
    """`RingHashLbConfig`, or the extension of that name."""
    ctx.check_fields(message, path, _RING_HASH)
    smallest = wrapped(message, "minimum_ring_size", 1024)
    largest = wrapped(message, "maximum_ring_size", _MAX_RING)
    if smallest > largest:
        raise ResourceError(
            join(path, "minimum_ring_size"), f"must be at most maximum_ring_size ({largest}), is {smallest}"
        )
    murmur = enum_name(message, "hash_function", path) == "MURMUR_HASH_2"
    return RingHash(smallest, largest, "MURMUR_HASH_2" if murmur else "XX_HASH", *hashing)


def maglev(ctx: Context, message: Any, path: str, hashing: Hashing) -> Maglev:
    """`MaglevLbConfig`, or the extension of that name."""
    ctx.check_fields(message, path, _MAGLEV)
    size = wrapped(message, "table_size", 65_537)
    if size > _MAX_TABLE or not _is_prime(size):
        raise ResourceError(join(path, "table_size"), f"must be a prime number up to {_MAX_TABLE}, is {size}")
    return Maglev(size, *hashing)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def consistent_hashing(ctx: Context, message: Any, path: str) -> Hashing | None:
    """`consistent_hashing_lb_config` of `common_lb_config` or of an extension, None where it is not set."""
    if not message.HasField("consistent_hashing_lb_config"):
        return None
    found, where = message.consistent_hashing_lb_config, join(path, "consistent_hashing_lb_config")
    ctx.check_fields(found, where, _CONSISTENT_HASHING)
    own = "hash_policy" in found.DESCRIPTOR.fields_by_name  # not in `common_lb_config`
    policies = hash_policies(ctx, found, where) if own else ()
    return bool(found.use_hostname_for_hashing), wrapped(found, "hash_balance_factor", 0), policies


def unsupported(ctx: Context, name: str, path: str) -> UnsupportedLbPolicy:
    """A policy that is not here: reported, and balanced round robin."""
    ctx.degraded(path, f"{name}: {_INSTEAD}")
    return UnsupportedLbPolicy(name)
