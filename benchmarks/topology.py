"""What every measured mesh is told: one service, all policies on, as an Envoy bootstrap.

The same document configures meshlib, the embedded control plane and the real Envoys it is compared with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SERVICE = "payments"
TENANT = ("x-tenant", "gold")
"""The header the measured route asks for."""
ROUTE_TIMEOUT, PER_TRY_TIMEOUT = 15.0, 5.0
MAX_RETRIES = 2

Message = Mapping[str, Any]
_TYPES = "type.googleapis.com/envoy.extensions"


def bootstrap(
    endpoints: Iterable[tuple[str, int]],
    *,
    routes: int = 1,
    listen_port: int = 0,
    weights: tuple[int, int] = (90, 10),
    version: str = "",
) -> dict[str, Any]:
    """A bootstrap with `routes` routes, of which the last is the one that matches, and two clusters of the same
    `endpoints`. `version`, if given, is sent upstream and back in a header `x-version`.
    """
    addresses = list(endpoints)
    return {
        "static_resources": {
            "listeners": [_listener(routes, listen_port, weights, version)],
            "clusters": [_cluster("stable", addresses), _cluster("canary", addresses)],
        }
    }


def write(path: Path, document: Message) -> Path:
    """Put a bootstrap in place of the last at once: no reader sees half of it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(document))
    return new.replace(path)


def _listener(routes: int, port: int, weights: tuple[int, int], version: str) -> Message:
    others = [
        {
            "match": {"prefix": f"/other/{index}", "headers": [_tenant()]},
            "route": {"cluster": "stable", "timeout": f"{ROUTE_TIMEOUT}s"},
        }
        for index in range(routes - 1)
    ]
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "egress",
        "route_config": {
            "name": SERVICE,
            "virtual_hosts": [{"name": SERVICE, "domains": ["*"], "routes": [*others, _route(weights, version)]}],
        },
        "http_filters": [
            _rate_limit(),
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    return {
        "name": "egress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _route(weights: tuple[int, int], version: str) -> Message:
    stable, canary = weights
    route: dict[str, Any] = {
        "match": {"prefix": "/", "headers": [_tenant()]},
        "route": {
            "weighted_clusters": {
                "clusters": [{"name": "stable", "weight": stable}, {"name": "canary", "weight": canary}]
            },
            "timeout": f"{ROUTE_TIMEOUT}s",
            "retry_policy": {
                "retry_on": "5xx,reset,connect-failure",
                "num_retries": MAX_RETRIES,
                "per_try_timeout": f"{PER_TRY_TIMEOUT}s",
                "retry_host_predicate": [
                    {
                        "name": "previous_hosts",
                        "typed_config": {"@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                    }
                ],
            },
        },
    }
    if version:
        route["response_headers_to_add"] = [{"header": {"key": "x-version", "value": version}}]
    return route


def _tenant() -> Message:
    name, value = TENANT
    return {"name": name, "string_match": {"exact": value}}


def _rate_limit() -> Message:
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "name": "local_ratelimit",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "egress",
            "token_bucket": {"max_tokens": 10_000_000, "tokens_per_fill": 10_000_000, "fill_interval": "1s"},
            "filter_enabled": always,
            "filter_enforced": always,
        },
    }


def _cluster(name: str, endpoints: list[tuple[str, int]]) -> Message:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1024,
                    "max_pending_requests": 1024,
                    "max_requests": 4096,
                    "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3},
                }
            ]
        },
        "outlier_detection": {
            "consecutive_5xx": 5,
            "interval": "10s",
            "base_ejection_time": "30s",
            "enforcing_success_rate": 0,
        },
        "metadata": {"filter_metadata": {"meshlib.circuit_breaker": {"fail_max": 5, "reset_timeout": 30}}},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(*item)}} for item in endpoints]}],
        },
    }


def _address(host: str, port: int) -> Message:
    return {"socket_address": {"address": host, "port_value": port}}
