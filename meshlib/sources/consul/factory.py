"""A Consul source from plain arguments, as `Mesh.from_consul` takes them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from meshlib.model.cluster import Cluster
from meshlib.model.route import DEFAULT_ROUTE_TIMEOUT, RetryPolicy
from meshlib.sources.consul.chain_clusters import CLUSTER_DEFAULTS
from meshlib.sources.consul.chain_routes import RouteDefaults
from meshlib.sources.consul.query import Consistency, HealthOptions
from meshlib.sources.consul.service import ConsulOptions
from meshlib.sources.consul.settings import load_settings
from meshlib.sources.consul.source import ConsulSource
from meshlib.sources.consul.watches import WatchLimits
from meshlib.sources.static import retry_policy


def consul_source(
    address: str | None = None,
    *,
    declared: Iterable[str] = (),
    passing: bool = False,
    tags: Iterable[str] = (),
    filter: str = "",  # noqa: A002  Consul's own word for it
    near: str = "",
    nearest: int | None = None,
    timeout: float | None = DEFAULT_ROUTE_TIMEOUT,
    retries: RetryPolicy | int | None = None,
    cluster: Cluster = CLUSTER_DEFAULTS,
    consistency: Consistency = "default",
    max_staleness: float | None = None,
    wait: float = 60.0,
    connections: int = 128,
    reset_grace: float = 30.0,
    domain: str = "consul",
    **settings: Any,
) -> ConsulSource:
    """`address` and `settings` (`token`, `datacenter`, ...) are those of `load_settings`: `CONSUL_*` says the others.

    Which instances: `passing` (none with a warning), `tags` (all of them), `filter` (Consul's expressions), sorted
    `near` a node ("_agent": here) the `nearest` so many before the others.
    Where Consul says nothing: `timeout` of a call in seconds, `retries` as in `static_snapshot`, and the policies of
    `cluster` (outlier detection, thresholds, balancing).
    How to ask: `consistency`, `max_staleness` of stale answers in seconds, `wait` of a blocking query, `connections`.
    `reset_grace`: seconds after Consul was away in which no instance is lost on its word alone. `domain`: of its DNS.
    """
    loaded = load_settings(address, **settings)
    health = HealthOptions(
        passing, tuple(tags), filter, near or ("_agent" if nearest else ""), loaded.namespace, loaded.partition
    )
    policy = retry_policy(retries) if isinstance(retries, int) else retries
    return ConsulSource(
        loaded,
        declared=declared,
        options=ConsulOptions(health, loaded.datacenter, cluster, RouteDefaults(timeout, policy), nearest, reset_grace),
        consistency=consistency,
        limits=replace(WatchLimits(), wait=wait, connections=connections, max_staleness=max_staleness),
        domain=domain,
    )


def _names(function: Any) -> set[str]:
    return {
        name for name, found in inspect.signature(function).parameters.items() if found.kind is not found.VAR_KEYWORD
    }


ARGUMENTS = frozenset(_names(consul_source) | (_names(load_settings) - {"environ"}))
"""Every argument `consul_source` takes: the others are the mesh's."""
