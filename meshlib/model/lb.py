"""Load-balancing policies (`envoy.extensions.load_balancing_policies`): how a cluster chooses among its endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.metadata import EMPTY_STRUCT, Struct

__all__ = [
    "ROUND_ROBIN",
    "LbPolicy",
    "LbSubsetConfig",
    "LeastRequest",
    "Random",
    "RingHash",
    "RoundRobin",
    "SubsetSelector",
    "UnsupportedLbPolicy",
]


@dataclass(frozen=True, slots=True)
class LbPolicy:
    """Base of the load-balancing policies."""


@dataclass(frozen=True, slots=True)
class RoundRobin(LbPolicy):
    """Weighted round robin (Envoy schedules by earliest deadline first)."""


ROUND_ROBIN = RoundRobin()


@dataclass(frozen=True, slots=True)
class LeastRequest(LbPolicy):
    """Power of N choices on active requests; with unequal weights, weight / (active + 1) ** bias."""

    choice_count: int = 2
    active_request_bias: float = 1.0


@dataclass(frozen=True, slots=True)
class Random(LbPolicy):
    """A uniformly random host; endpoint weights do not count, as in Envoy."""


@dataclass(frozen=True, slots=True)
class RingHash(LbPolicy):
    """Ketama ring. Sizes as in Envoy: minimum 1024, maximum 8 388 608 entries."""

    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8_388_608
    hash_function: Literal["XX_HASH", "MURMUR_HASH_2"] = "XX_HASH"
    use_hostname_for_hashing: bool = False


@dataclass(frozen=True, slots=True)
class UnsupportedLbPolicy(LbPolicy):
    """A policy this version does not have; the plan balances round robin instead and says so."""

    name: str


@dataclass(frozen=True, slots=True)
class SubsetSelector:
    """The metadata keys that make a subset."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LbSubsetConfig:
    """Subsets by endpoint metadata (`envoy.lb`). The fallback is for requests whose criteria match no subset."""

    selectors: tuple[SubsetSelector, ...]
    fallback_policy: Literal["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"] = "NO_FALLBACK"
    default_subset: Struct = EMPTY_STRUCT
