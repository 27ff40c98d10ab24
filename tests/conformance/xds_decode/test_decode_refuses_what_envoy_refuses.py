"""The refusals of tests/unit/decode, put to a real Envoy: it refuses the same, but for a reviewed list.

`envoy --mode validate` reads them as static resources, which costs 40 ms each.
"""

import importlib.util
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.registry import path_of

Json = dict[str, Any]

POLICY = "load_balancing_policy.policies[0].typed_extension_config.typed_config"
OURS = 'metadata.filter_metadata["meshlib.circuit_breaker"]'  # Envoy ignores it
STRICTER = {
    # path: why we refuse what a static Envoy takes
    "common_lb_config.healthy_panic_threshold.value": "NaN passes Envoy's comparisons and is no percentage",
    "endpoints[0].lb_endpoints": "Envoy checks the sum for EDS, not for static clusters",
    "endpoints": "the same of the sum of the localities' weights",
    f"{POLICY}.subset_lb_policy.{POLICY.partition('.')[2]}": "no subset brings a balancer; Envoy does not look",
    "api_listener.api_listener.http_filters": "gRFC A39; in Envoy such a listener answers nothing",
    "api_listener.api_listener.rds.route_config_name": "gRFC A27; nothing can be asked for by an empty name",
}


def _table() -> list[tuple[str, Json, str, str]]:
    path = Path(__file__).parents[2] / "unit" / "decode" / "test_decode_rejects.py"
    spec = importlib.util.spec_from_file_location("decode_rejects", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table: list[tuple[str, Json, str, str]] = module.TABLE
    return table


def _manager_of(listener: Json) -> Json:
    manager: Json = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _bootstrap(type_url: str, resource: Json) -> Json:
    """A bootstrap with the resource in its place; the ADS it names is never asked."""
    ads_cluster = {
        "name": "ads",
        "type": "STATIC",
        "http2_protocol_options": {},
        "load_assignment": xds.assignment("ads", xds.endpoint("127.0.0.1", 1)),
    }
    clusters: list[Json] = [ads_cluster]
    listeners: list[Json] = []
    listener = xds.socket_listener("l", 10_000, "routes")
    if type_url == CLUSTER:
        clusters.append(resource)
    elif type_url == CLUSTER_LOAD_ASSIGNMENT:
        clusters.append({"name": "static", "type": "STATIC", "load_assignment": resource})
    elif type_url == ROUTE_CONFIGURATION:
        del _manager_of(listener)["rds"]
        _manager_of(listener)["route_config"] = {**resource, "validate_clusters": False}
        listeners.append(listener)
    elif "api_listener" in resource:  # a static API listener is not what LDS would check; its manager is
        listener["filter_chains"][0]["filters"][0]["typed_config"] = resource["api_listener"]["api_listener"]
        listeners.append(listener)
    else:
        assert type_url == LISTENER
        listeners.append(resource)
    grpc = {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}]}
    return {
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {"ads_config": grpc},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    }


def _is_refused(file: Path, type_url: str, resource: Json) -> bool:
    file.write_text(json.dumps(_bootstrap(type_url, resource)))
    argv = [path_of("envoy"), "--mode", "validate", "-c", str(file), "-l", "critical", "--use-dynamic-base-id"]
    return subprocess.run(argv, capture_output=True, timeout=60).returncode != 0


@pytest.mark.needs("envoy")
def test_envoy_refuses_the_same(tmp_path: Path) -> None:
    table = _table()
    with ThreadPoolExecutor(2) as pool:
        refused = pool.map(lambda row: _is_refused(tmp_path / f"{row[0]}.json", *row[1][:2]), enumerate(table))
    taken = {path for (_, _, path, reason), is_refused in zip(table, refused, strict=True) if not is_refused}
    assert {path for path in taken if OURS not in path} == set(STRICTER)


@pytest.mark.needs("envoy")
@pytest.mark.parametrize(
    "type_url, resource",
    [
        (ROUTE_CONFIGURATION, xds.route_configuration("routes", xds.route())),
        (CLUSTER, xds.eds_cluster()),
        (CLUSTER_LOAD_ASSIGNMENT, xds.assignment()),
        (LISTENER, xds.api_listener()),
        (LISTENER, xds.socket_listener("l", 10_000, "routes")),
    ],
)
def test_the_places_are_good_for_good_resources(tmp_path: Path, type_url: str, resource: Json) -> None:
    assert not _is_refused(tmp_path / "good.json", type_url, resource)
