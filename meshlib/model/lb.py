"""Load-balancing policies (`envoy.extensions.load_balancing_policies`): how a cluster chooses among its endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.metadata import EMPTY_STRUCT, Struct

__all__ = [
    "ROUND_ROBIN",
    "ClientSideWeightedRoundRobin",
    "LbPolicy",
    "LbSubsetConfig",
    "LeastRequest",
    "PeakEwma",
    "Random",
    "RingHash",
    "RoundRobin",
    "SlowStart",
    "SubsetSelector",
    "UnsupportedLbPolicy",
]


@dataclass(frozen=True, slots=True)
class LbPolicy:
    """Base of the load-balancing policies."""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """A new endpoint takes weight · max(min_weight_percent %, (t / window) ** (1 / aggression)), `t` seconds after it
    joined, for `window` seconds (Envoy's `SlowStartConfig`).
    """

    window: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0


@dataclass(frozen=True, slots=True)
class RoundRobin(LbPolicy):
    """Weighted round robin (Envoy schedules by earliest deadline first)."""

    slow_start: SlowStart | None = None


ROUND_ROBIN = RoundRobin()


@dataclass(frozen=True, slots=True)
class LeastRequest(LbPolicy):
    """Power of N choices on active requests; with unequal weights, weight / (active + 1) ** bias. `full_scan` looks at
    every endpoint instead of drawing `choice_count` of them.
    """

    choice_count: int = 2
    active_request_bias: float = 1.0
    full_scan: bool = False
    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True)
class ClientSideWeightedRoundRobin(LbPolicy):
    """Round robin weighted by the load that endpoints report (ORCA; gRFC A58 and A114). Seconds throughout.

    `oob_reporting_period` None: reports come with responses; else each endpoint is asked for one that often.
    """

    blackout_period: float = 10.0
    weight_expiration_period: float = 180.0
    weight_update_period: float = 1.0
    error_utilization_penalty: float = 1.0
    metric_names_for_computing_utilization: tuple[str, ...] = ()
    oob_reporting_period: float | None = None
    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True)
class PeakEwma(LbPolicy):
    """Power of two choices on peak latency times active requests (Finagle's; `contrib` in Envoy). Seconds.

    `default_rtt` is the latency of an endpoint never heard of; one with a request in flight and no answer yet costs
    `penalty`.
    """

    decay_time: float = 10.0
    default_rtt: float = 0.01
    penalty: float = 1_000_000.0


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
