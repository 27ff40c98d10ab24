"""The same clusters in a real Envoy and in ours, and requests counted by the endpoint that answered.

One Envoy holds every cluster of a test; a request names its cluster in `x-cluster` and its hash key in `x-key`.
"""

import http.client
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xxhash import xxh64_intdigest

from meshlib.balancing.cluster import ClusterBalancer
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.lb import (
    LbPolicy,
    LbSubsetConfig,
    LeastRequest,
    Maglev,
    Random,
    RingHash,
    RoundRobin,
    SubsetSelector,
)
from meshlib.model.metadata import Struct
from meshlib.state.cells import ClusterState

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
POLICIES = {
    RoundRobin: "ROUND_ROBIN",
    LeastRequest: "LEAST_REQUEST",
    Random: "RANDOM",
    RingHash: "RING_HASH",
    Maglev: "MAGLEV",
}
EXTENSIONS = "type.googleapis.com/envoy.extensions.load_balancing_policies."


class EnvoyClient:
    """Asks Envoy over one kept connection which endpoint answers."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def pick(self, cluster: str, key: str = "", criteria: str = "") -> str | None:
        """The name of the backend, None when Envoy has no healthy upstream."""
        optional = {"x-key": key, "x-criteria": criteria}
        headers = {"x-cluster": cluster, **{name: value for name, value in optional.items() if value}}
        self._connection.request("GET", "/", headers=headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status == 503 and body == b"no healthy upstream":
            return None
        assert response.status in (200, 500), (
            response.status,
            body,
        )  # 500: what a test's backends answer, to be retried
        return response.headers["x-backend"]

    def picks(self, cluster: str, count: int) -> Counter[str | None]:
        return Counter(self.pick(cluster) for _ in range(count))

    def close(self) -> None:
        self._connection.close()


def our_balancer(cluster: Cluster) -> ClusterBalancer:
    return ClusterBalancer(cluster, cluster.load_assignment, ClusterState(cluster.name))


def our_hash(key: str) -> int:
    return xxh64_intdigest(key.encode())


def bootstrap(
    clusters: Iterable[Cluster], retry: Mapping[str, Any] | None = None, criteria: Sequence[Struct] = ()
) -> dict[str, Any]:
    """One listener that routes by `x-cluster`, hashes by `x-key`, and takes the criteria numbered by `x-criteria`."""
    route: dict[str, Any] = {
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": "x-cluster",
            "hash_policy": [{"header": {"header_name": "x-key"}}],
            **({"retry_policy": retry} if retry else {}),
        },
    }
    routes = [_with_criteria(route, number, struct) for number, struct in enumerate(criteria)]
    manager = {
        "@type": HCM,
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [*routes, route], "include_request_attempt_count": True}
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": ROUTER}],
    }
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster(cluster) for cluster in clusters]}}


def _with_criteria(route: Mapping[str, Any], number: int, criteria: Struct) -> dict[str, Any]:
    header = {"name": "x-criteria", "string_match": {"exact": str(number)}}
    action = {**route["route"], "metadata_match": {"filter_metadata": {"envoy.lb": _plain(criteria)}}}
    return {"match": {"prefix": "/", "headers": [header]}, "route": action}


def _subsets(config: LbSubsetConfig) -> dict[str, Any]:
    return {
        "subset_selectors": [_selector(selector) for selector in config.selectors],
        "fallback_policy": config.fallback_policy,
        "default_subset": _plain(config.default_subset),
        "metadata_fallback_policy": "FALLBACK_LIST" if config.metadata_fallback_list else "METADATA_NO_FALLBACK",
        "list_as_any": config.list_as_any,
        "panic_mode_any": config.panic_mode_any,
        "locality_weight_aware": config.locality_weight_aware,
        "scale_locality_weight": config.scale_locality_weight,
    }


def _selector(selector: SubsetSelector) -> dict[str, Any]:
    return {
        "keys": list(selector.keys),
        "fallback_policy": selector.fallback_policy,
        "fallback_keys_subset": list(selector.fallback_keys),
        "single_host_per_subset": selector.single_host_per_subset,
    }


def _subset_extension(cluster: Cluster, config: LbSubsetConfig) -> dict[str, Any]:
    """The only form that has `allow_redundant_keys`; a ring within."""
    assert isinstance(cluster.lb_policy, RingHash)
    weighted: dict[str, Any] = {"locality_weighted_lb_config": {}} if cluster.locality_weighted else {}
    child = _policy_of("ring_hash.v3.RingHash", {**_policy(cluster.lb_policy)["ring_hash_lb_config"], **weighted})
    fields = {"allow_redundant_keys": True, "subset_lb_policy": child}
    return {"load_balancing_policy": _policy_of("subset.v3.Subset", {**_subsets(config), **fields})}


def _override_host(cluster: Cluster) -> dict[str, Any]:
    """Round robin where a request names no endpoint."""
    assert cluster.override_host is not None
    child = _policy_of("round_robin.v3.RoundRobin", {})
    sources = [{"header": source.header} for source in cluster.override_host.sources]
    fields = {"override_host_sources": sources, "fallback_policy": child}
    return {"load_balancing_policy": _policy_of("override_host.v3.OverrideHost", fields)}


def _policy_of(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    typed = {"name": name, "typed_config": {"@type": f"{EXTENSIONS}{name}", **config}}
    return {"policies": [{"typed_extension_config": typed}]}


def _cluster(cluster: Cluster) -> dict[str, Any]:
    assert cluster.load_assignment is not None
    common: dict[str, Any] = {"healthy_panic_threshold": {"value": cluster.healthy_panic_threshold}}
    by_extension = _by_extension(cluster)
    if cluster.locality_weighted and not by_extension:
        common["locality_weighted_lb_config"] = {}
    if isinstance(cluster.lb_policy, RingHash | Maglev) and not by_extension:
        hashing: dict[str, Any] = {"use_hostname_for_hashing": cluster.lb_policy.use_hostname_for_hashing}
        if cluster.lb_policy.hash_balance_factor:
            hashing["hash_balance_factor"] = cluster.lb_policy.hash_balance_factor
        common["consistent_hashing_lb_config"] = hashing
    return {
        "name": cluster.name,
        "type": cluster.type,
        "connect_timeout": "5s",
        "common_lb_config": common,
        **_balancing(cluster),
        "load_assignment": _assignment(cluster.name, cluster.load_assignment),
    }


def _by_extension(cluster: Cluster) -> bool:
    """Whether `load_balancing_policy` says it all: Envoy refuses most of `common_lb_config` beside it."""
    return cluster.override_host is not None or (cluster.subsets is not None and cluster.subsets.allow_redundant_keys)


def _balancing(cluster: Cluster) -> dict[str, Any]:
    if cluster.override_host is not None:
        return _override_host(cluster)
    if cluster.subsets is not None and cluster.subsets.allow_redundant_keys:
        return _subset_extension(cluster, cluster.subsets)
    legacy = {"lb_policy": POLICIES[type(cluster.lb_policy)], **_policy(cluster.lb_policy)}
    return {**legacy, "lb_subset_config": _subsets(cluster.subsets)} if cluster.subsets is not None else legacy


def _policy(policy: LbPolicy) -> dict[str, Any]:
    match policy:
        case RingHash():
            config = {
                "minimum_ring_size": policy.minimum_ring_size,
                "maximum_ring_size": policy.maximum_ring_size,
                "hash_function": policy.hash_function,
            }
            return {"ring_hash_lb_config": config}
        case Maglev():
            return {"maglev_lb_config": {"table_size": policy.table_size}}
        case LeastRequest():
            return {"least_request_lb_config": {"choice_count": policy.choice_count}}
    return {}


def _assignment(name: str, assignment: ClusterLoadAssignment) -> dict[str, Any]:
    factor = {"overprovisioning_factor": assignment.overprovisioning_factor}
    return {"cluster_name": name, "policy": factor, "endpoints": [_locality(group) for group in assignment.localities]}


def _locality(group: LocalityLbEndpoints) -> dict[str, Any]:
    weight = {} if group.weight is None else {"load_balancing_weight": group.weight}
    return {
        "locality": {"zone": group.locality.zone},
        "priority": group.priority,
        **weight,
        "lb_endpoints": [_endpoint(endpoint) for endpoint in group.endpoints],
    }


def _endpoint(endpoint: LbEndpoint) -> dict[str, Any]:
    address = {"address": endpoint.address.host, "port_value": endpoint.address.port}
    found: dict[str, Any] = {
        "endpoint": {"address": {"socket_address": address}, "hostname": endpoint.hostname},
        "load_balancing_weight": endpoint.weight,
        "health_status": endpoint.health_status,
    }
    if struct := endpoint.metadata.namespace("envoy.lb"):
        found["metadata"] = {"filter_metadata": {"envoy.lb": _plain(struct)}}
    return found


def _plain(struct: Struct) -> dict[str, Any]:
    return {key: _json(value) for key, value in struct.items}


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return _plain(value) if isinstance(value, Struct) else value


def chi_squared(first: Mapping[str | None, int], second: Mapping[str | None, int]) -> tuple[float, int]:
    """The statistic and the degrees of freedom for two samples of the same distribution."""
    keys: Sequence[str | None] = [key for key in {*first, *second} if first.get(key, 0) + second.get(key, 0)]
    sizes = sum(first.values()), sum(second.values())
    statistic = 0.0
    for key in keys:
        both = first.get(key, 0) + second.get(key, 0)
        for sample, size in ((first, sizes[0]), (second, sizes[1])):
            expected = both * size / sum(sizes)
            statistic += (sample.get(key, 0) - expected) ** 2 / expected
    return statistic, len(keys) - 1


def critical_value(degrees: int, deviations: float = 5.0) -> float:
    """The chi-squared value at so many standard deviations of a normal (5: 1 in 3 million), by Wilson and Hilferty."""
    if degrees == 0:
        return 0.0
    part = 2 / (9 * degrees)
    return degrees * float(1 - part + deviations * part**0.5) ** 3
