"""Load-balancing policies (`envoy.extensions.load_balancing_policies`): how a cluster chooses among its endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.route import HashPolicy

__all__ = [
    "ROUND_ROBIN",
    "ClientSideWeightedRoundRobin",
    "LbPolicy",
    "LbSubsetConfig",
    "LeastRequest",
    "Maglev",
    "OverrideHost",
    "OverrideHostSource",
    "PeakEwma",
    "PickFirst",
    "Random",
    "RandomSubsetting",
    "RingHash",
    "RoundRobin",
    "SlowStart",
    "SubsetSelector",
    "UnsupportedLbPolicy",
    "UserLbPolicy",
    "takes_hash",
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
class PickFirst(LbPolicy):
    """The first endpoint that can be used, in the assignment's order, or shuffled once (gRPC's; not in Envoy)."""

    shuffle_address_list: bool = False


@dataclass(frozen=True, slots=True)
class RingHash(LbPolicy):
    """Ketama ring. Sizes as in Envoy: minimum 1024, maximum 8 388 608 entries.

    `hash_balance_factor` in percent (at least 100, 0: off) bounds an endpoint's active requests to that part of its
    share. `hash_policies`, where there are any, hash requests in place of the route's.
    """

    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8_388_608
    hash_function: Literal["XX_HASH", "MURMUR_HASH_2"] = "XX_HASH"
    use_hostname_for_hashing: bool = False
    hash_balance_factor: int = 0
    hash_policies: tuple[HashPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class Maglev(LbPolicy):
    """Google's Maglev table; `table_size` is a prime, 5 000 011 at most. The others as for `RingHash`."""

    table_size: int = 65_537
    use_hostname_for_hashing: bool = False
    hash_balance_factor: int = 0
    hash_policies: tuple[HashPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class UserLbPolicy(LbPolicy):
    """A balancer of the application's, registered by `name`, built from `config` (`meshlib.balancing.user`)."""

    name: str
    config: Struct = EMPTY_STRUCT


@dataclass(frozen=True, slots=True)
class UnsupportedLbPolicy(LbPolicy):
    """A policy this version does not have; the plan balances round robin instead and says so."""

    name: str


SelectorFallback = Literal["NOT_DEFINED", "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET", "KEYS_SUBSET"]


def takes_hash(policy: LbPolicy) -> bool:
    """Whether a balancer asks for the request's hash; of one that is not known here it is believed."""
    plain = RoundRobin | LeastRequest | ClientSideWeightedRoundRobin | PeakEwma | Random | PickFirst
    return not isinstance(policy, plain)


@dataclass(frozen=True, slots=True)
class SubsetSelector:
    """The metadata keys that make a subset, sorted. `fallback_policy` is for requests with just these keys that find no
    subset (NOT_DEFINED: the configuration's); KEYS_SUBSET tries again with only the `fallback_keys`.
    """

    keys: tuple[str, ...]
    fallback_policy: SelectorFallback = "NOT_DEFINED"
    fallback_keys: tuple[str, ...] = ()
    single_host_per_subset: bool = False


@dataclass(frozen=True, slots=True)
class LbSubsetConfig:
    """Subsets by endpoint metadata (`envoy.lb`). The fallback is for requests whose criteria match no subset.

    `metadata_fallback_list`: criteria may hold a `fallback_list` of criteria, of which the first that gives an endpoint
    counts. `list_as_any`: a list in an endpoint's metadata stands for each of its values. `panic_mode_any`: any
    endpoint, where the fallback has none. `allow_redundant_keys`: criteria may have more keys than a selector.
    `locality_weight_aware` keeps locality weights in a subset, `scale_locality_weight` in proportion to its endpoints.
    """

    selectors: tuple[SubsetSelector, ...]
    fallback_policy: Literal["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"] = "NO_FALLBACK"
    default_subset: Struct = EMPTY_STRUCT
    metadata_fallback_list: bool = False
    list_as_any: bool = False
    panic_mode_any: bool = False
    allow_redundant_keys: bool = False
    locality_weight_aware: bool = False
    scale_locality_weight: bool = False


@dataclass(frozen=True, slots=True)
class OverrideHostSource:
    """Where a request says which endpoints it wants, as `IP:port` separated by commas: in the first value of `header`
    (lower case), or in dynamic metadata, under `path` of the namespace `namespace`.
    """

    header: str = ""
    namespace: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OverrideHost:
    """Endpoints that a request asks for are tried first, in its order, one for each attempt, whatever their health;
    then the cluster's policy chooses (`envoy.extensions.load_balancing_policies.override_host`).
    """

    sources: tuple[OverrideHostSource, ...]


@dataclass(frozen=True, slots=True)
class RandomSubsetting:
    """Only `subset_size` of the endpoints of a priority are used (with `per_locality` of each of its localities), which
    ones differs from process to process (gRFC A68).
    """

    subset_size: int
    per_locality: bool = False
