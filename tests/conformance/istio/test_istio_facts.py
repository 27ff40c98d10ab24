"""What istiod says when nobody says otherwise: the defaults that our translation of files copies, read from istiod."""

from collections.abc import Callable

import pytest

from meshlib.model.cluster import Cluster, OutlierDetection, Thresholds
from meshlib.model.lb import LeastRequest, RoundRobin
from meshlib.model.route import RetryPolicy, RouteAction, VirtualHost
from meshlib.model.snapshot import Snapshot
from parts.istio_bookinfo import WORKLOADS, documents, services, subsets
from parts.istio_nodes import Kind, istio_mesh
from parts.istio_server import IstioServer

pytestmark = pytest.mark.needs("istio_generator")

UNLIMITED = 2**32 - 1
REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"
RATINGS = "outbound|9080||ratings.default.svc.cluster.local"


@pytest.fixture(scope="module")
def snapshots(generator: Callable[..., IstioServer]) -> dict[Kind, Snapshot]:
    """What a sidecar and a proxyless node are told of services without rules, but that ratings has an empty one."""
    objects = [services(dict.fromkeys(WORKLOADS, (5000, 6000))), subsets("ratings", "{outlierDetection: {}}")]
    istio = generator(documents(objects))
    found: dict[Kind, Snapshot] = {}
    kinds: tuple[Kind, ...] = ("sidecar", "grpc")
    for kind in kinds:
        with istio_mesh(istio, kind, declared=["reviews.default.svc.cluster.local:9080"]).wait_ready() as mesh:
            found[kind] = mesh.plan.snapshot
    return found


def virtual_host(snapshot: Snapshot) -> VirtualHost:
    name = "reviews.default.svc.cluster.local:9080"
    return next(host for table in snapshot.routes.values() for host in table.virtual_hosts if host.name == name)


@pytest.mark.parametrize("kind", ["sidecar", "grpc"])
def test_a_service_without_rules_is_retried_twice_and_has_no_timeout(
    kind: Kind, snapshots: dict[Kind, Snapshot]
) -> None:
    host = virtual_host(snapshots[kind])
    (route,) = host.routes
    assert isinstance(route.action, RouteAction)
    assert route.action.cluster == REVIEWS
    assert route.action.timeout is None
    assert route.action.retry_policy == RetryPolicy(
        retry_on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"),
        num_retries=2,
        previous_hosts=True,
        host_selection_retry_max_attempts=5,
    )
    assert host.include_request_attempt_count


def test_a_sidecar_s_clusters_are_unlimited_and_least_request(snapshots: dict[Kind, Snapshot]) -> None:
    found = snapshots["sidecar"].clusters[REVIEWS]
    limits = Thresholds(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)
    assert (found.type, found.lb_policy, found.connect_timeout) == ("EDS", LeastRequest(), 10.0)
    assert found.circuit_breakers.default == limits
    assert found.outlier_detection is None
    assert found.healthy_panic_threshold == 0.0, "panic mode is off"
    assert [match.criteria.get("tlsMode") for match in found.tls_matches] == ["istio", None], "automatic mutual TLS"


def test_an_empty_outlier_detection_has_envoy_s_numbers_without_success_rate(snapshots: dict[Kind, Snapshot]) -> None:
    found = snapshots["sidecar"].clusters[RATINGS].outlier_detection
    assert found == OutlierDetection(enforcing_success_rate=0)


def test_a_proxyless_client_s_clusters_say_next_to_nothing(snapshots: dict[Kind, Snapshot]) -> None:
    found = snapshots["grpc"].clusters[REVIEWS]
    assert found == Cluster(REVIEWS, type="EDS", eds_service_name=REVIEWS)
    assert found.lb_policy == RoundRobin()


def test_what_nobody_knows_passes_through(snapshots: dict[Kind, Snapshot]) -> None:
    sidecar = snapshots["sidecar"]
    assert sidecar.clusters["PassthroughCluster"].type == "ORIGINAL_DST"
    table = sidecar.routes["9080"]
    assert table.ignore_port_in_host_matching
    assert [host.domains for host in table.virtual_hosts if host.name == "allow_any"] == [("*",)]
    unbound = {name for name, listener in sidecar.listeners.items() if not listener.bound}
    assert unbound == {"0.0.0.0_9080", "0.0.0.0_9090"}
    assert sidecar.listeners["virtualOutbound"].bound
