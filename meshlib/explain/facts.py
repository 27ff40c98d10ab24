"""What a decision says, as JSON-like values: timeouts, retries, thresholds, weights, filters, endpoints."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass, replace
from typing import Any

from meshlib.balancing.base import Host
from meshlib.balancing.report import BalancerReport, HostReport
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.decision import Forward
from meshlib.engine.facts import of_request
from meshlib.engine.route import RoutePlan, Share
from meshlib.engine.table import VirtualHostPlan
from meshlib.model.metadata import Struct
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.model.route import WeightedClusters
from meshlib.routing.facts import CallFacts
from meshlib.routing.matchers import HeaderPredicate
from meshlib.routing.router import Rng


def trials(host: VirtualHostPlan, head: RequestHead, rng: Rng) -> list[dict[str, Any]]:
    """The routes tried, up to the one that matched."""
    return [
        {"route": tried.name, "index": tried.index, "matched": tried.matched, "failed": tried.failed}
        for tried in host.table.trace(head, rng)
    ]


def virtual_cluster(host: VirtualHostPlan, head: RequestHead) -> str | None:
    """The first virtual cluster whose headers all fit, `other` where none does; None where there are none."""
    known = host.table.config.virtual_clusters
    for each in known:
        if all(HeaderPredicate(matcher)(head) for matcher in each.headers):
            return each.name
    return "other" if known else None


def weights(route: RoutePlan, chosen: Share) -> list[dict[str, Any]]:
    """The shares of a weighted route, and which one was drawn."""
    cluster = getattr(route.action, "cluster", None)
    if not isinstance(cluster, WeightedClusters):
        return []
    shares = zip(cluster.clusters, route.shares, strict=True)
    drawn = chosen.cluster  # of a cluster with lanes the share is a copy
    return [{"cluster": said.name, "weight": said.weight, "chosen": share.cluster is drawn} for said, share in shares]


def filters(share: Share) -> list[dict[str, Any]]:
    """The filters that run on the request, in order, with their settings."""
    return [{"type": type(each.config).__name__, **settings(each.config)} for each in share.filters]


def answered(decision: Forward, host: Host | None, now: float) -> CallFacts:
    """What operators in response headers would see, were the endpoint to answer at once."""
    known = of_request(decision, lambda: now)
    if host is None:
        return known
    tried = [(host.address, host.endpoint.hostname)]
    return replace(known, attempted=tried, endpoint_metadata=host.endpoint.metadata, details="via_upstream")


def settings(config: Any) -> dict[str, Any]:
    """A filter's configuration."""
    return asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}


def thresholds(decision: Forward) -> dict[str, Any]:
    """The cluster's circuit-breaker thresholds for the route's priority."""
    _, limits = decision.cluster.thresholds(decision.action.priority)
    return {
        "priority": decision.action.priority,
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
        "retry_budget": limits.retry_budget.budget_percent if limits.retry_budget else None,
    }


def balancing(cluster: ClusterPlan, criteria: Struct) -> dict[str, Any]:
    """What the cluster would choose from for these subset criteria."""
    report: BalancerReport = (cluster.aggregate or cluster.balancer).describe(criteria)
    priorities = [
        {
            "priority": entry.priority,
            "healthy_load": entry.healthy_load,
            "degraded_load": entry.degraded_load,
            "panic": entry.panic,
            "endpoints": [_endpoint(host) for host in entry.hosts],
        }
        for entry in report.priorities
    ]
    return {"policy": report.policy, "subset": plain(criteria), "priorities": priorities}


def _endpoint(host: HostReport) -> dict[str, Any]:
    where = host.locality
    return {
        "address": host.address,
        "locality": "/".join((where.region, where.zone, where.sub_zone)).rstrip("/"),
        "weight": host.weight,
        "health": host.health,
        "availability": host.availability,
        "ejected": host.ejected,
        "out_of_reach": host.out_of_reach,
        "health_flags": list(host.health_flags),
        "active": host.active,
    }


def cluster_state(cluster: ClusterPlan) -> dict[str, Any]:
    """What the cluster is doing now."""
    state = cluster.state
    breaker = getattr(cluster.breaker, "current_state", None)
    return {
        "requests": len(state.default.requests) + len(state.high.requests),
        "ejected": len(state.ejected),
        "breaker": breaker if isinstance(breaker, str) else None,
    }


def plain(struct: Struct) -> dict[str, Any]:
    """A frozen struct as a dict."""
    return {key: plain(value) if isinstance(value, Struct) else value for key, value in struct.items}


def texts(headers: RawHeaders) -> list[list[str]]:
    """Headers as pairs of texts, names in lower case."""
    return [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in headers]
