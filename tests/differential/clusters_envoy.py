"""The same clusters, written as Envoy's configuration, in a real Envoy and compiled as ours; shares are compared."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import envoy.extensions.clusters.aggregate.v3.cluster_pb2  # noqa: F401  its type is known to JSON then
from envoy.config.cluster.v3.cluster_pb2 import Cluster as ClusterMessage
from google.protobuf import json_format

from differential.balancing_envoy import HCM, ROUTER
from meshlib.engine.aggregate import AggregatePlan
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.clusters import compile_clusters
from meshlib.engine.plan import Attached
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Locality
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.snapshot import Snapshot
from meshlib.model.zones import Local
from meshlib.sources.xds.decode import decode_message
from meshlib.state.cells import MeshState

Host = tuple[int, str, int]
"""Port, health status, weight."""
ZONE = "here"


def group(zone: str, hosts: Sequence[Host], priority: int = 0) -> dict[str, Any]:
    return {"locality": {"zone": zone}, "priority": priority, "lb_endpoints": [_endpoint(*host) for host in hosts]}


def _endpoint(port: int, health: str, weight: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"endpoint": {"address": address}, "health_status": health, "load_balancing_weight": weight}


def cluster(name: str, groups: Iterable[Mapping[str, Any]], factor: int = 140, **fields: Any) -> dict[str, Any]:
    policy = {"overprovisioning_factor": factor, **fields.pop("policy", {})}
    assignment = {"cluster_name": name, "endpoints": list(groups), "policy": policy}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment, **fields}


def aggregate(name: str, children: Sequence[str], **fields: Any) -> dict[str, Any]:
    config = {"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": children}
    kind = {"name": "envoy.clusters.aggregate", "typed_config": config}
    return {"name": name, "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": kind, **fields}


def bootstrap(clusters: Sequence[Mapping[str, Any]], local: str = "") -> dict[str, Any]:
    """One listener that routes by `x-cluster`; the process is in the zone `here`, and an endpoint of `local`."""
    route = {"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}}
    manager = {
        "@type": HCM,
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": ROUTER}],
    }
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    found: dict[str, Any] = {"static_resources": {"listeners": [listener], "clusters": list(clusters)}}
    if local:
        found["node"] = {"id": "test", "cluster": local, "locality": {"zone": ZONE}}
        found["cluster_manager"] = {"local_cluster_name": local}
    return found


def plans(clusters: Sequence[Mapping[str, Any]], local: str = "") -> dict[str, ClusterPlan]:
    """Ours."""
    found: dict[str, Cluster] = {}
    for values in clusters:
        decoded = decode_message(json_format.ParseDict(values, ClusterMessage())).resource
        assert isinstance(decoded, Cluster)
        found[decoded.name] = decoded
    place = Local(Locality(zone=ZONE), local)
    return compile_clusters(Snapshot(clusters=found, local=place), MeshState(), Attached(), {})


def picks(plan: ClusterPlan, count: int, seed: int = 1) -> Counter[str | None]:
    """The addresses ours picks."""
    rng, found = random.Random(seed), Counter[str | None]()
    for _ in range(count):
        host = None
        if isinstance(plan, AggregatePlan):
            host = plan.aggregate.pick(None, EMPTY_STRUCT, rng) if plan.aggregate is not None else None
        else:
            host = plan.balancer.pick(None, EMPTY_STRUCT, rng)
        found[host.address if host is not None else None] += 1
    return found
