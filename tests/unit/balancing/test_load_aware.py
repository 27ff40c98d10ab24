"""Load-aware localities by the numbers of Envoy's documentation."""

import random
from collections import Counter
from math import exp
from typing import Any

import pytest
import xds.type.v3.typed_struct_pb2  # noqa: F401  its type is known to JSON then

from meshlib.balancing.cluster import ClusterBalancer
from meshlib.balancing.load_aware import Load, locality_weights, take_in_utilization
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Locality
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.orca import LoadReport
from meshlib.model.zones import LoadAware
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER
from meshlib.state.cells import ClusterState
from parts.balancing import assignment, endpoint, group
from parts.xds_resources import message

RAW = LoadAware(smoothing_time_constant=0.001, remote_probe_fraction=0.0)  # no smoothing to speak of
HERE = Locality(zone="a")


def loads(config: LoadAware, *localities: tuple[int, float | None], local: int | None = 0) -> list[Load]:
    """(Endpoints, utilization) of each; None: never heard of."""
    found = []
    for index, (count, used) in enumerate(localities):
        load = Load(config, (), index == local)
        load.count, load.smoothed = count, used
        found.append(load)
    return found


def shares(config: LoadAware, *localities: tuple[int, float | None], local: int | None = 0) -> list[float]:
    weights = locality_weights(config, loads(config, *localities, local=local))
    return [round(weight / sum(weights), 4) for weight in weights]


def test_the_worked_example() -> None:
    assert shares(RAW, (10, 0.7), (10, 0.3), (10, 0.4)) == [0.1875, 0.4375, 0.375]
    assert shares(RAW, (10, 0.45), (10, 0.45), (10, 0.45)) == [1.0, 0.0, 0.0]
    assert shares(LoadAware(), (10, 0.45), (10, 0.45), (10, 0.45)) == [0.97, 0.015, 0.015]


@pytest.mark.parametrize(
    ("localities", "local", "wanted"),
    [
        (((10, None), (10, None)), 0, [1.0, 0.0]),  # nobody has reported: here
        (((10, 0.1), (10, 0.9)), 0, [1.0, 0.0]),  # less busy than the others, however much
        (((10, 0.5), (10, 0.41)), 0, [1.0, 0.0]),  # within the threshold
        (((10, 0.9), (30, 0.5), (10, 0.0)), 0, [1 / 26, 15 / 26, 10 / 26]),
        (((10, 0.5), (10, 0.5)), None, [0.5, 0.5]),  # none of them is ours
        (((10, 1.0), (30, 1.2)), 0, [0.25, 0.75]),  # all full: by their endpoints
        (((0, None), (10, 0.5)), 0, [0.0, 1.0]),
        (((10, 0.9),), 0, [1.0]),
    ],
)
def test_weights(localities: Any, local: int | None, wanted: list[float]) -> None:
    assert shares(RAW, *localities, local=local) == [round(share, 4) for share in wanted]


def test_probes_take_no_more_than_there_is_here() -> None:
    config = LoadAware(remote_probe_fraction=0.5)
    assert shares(config, (10, 0.5), (10, 0.5), (30, 0.5)) == [0.5, 0.125, 0.375]
    assert shares(config, (10, 0.99), (10, 0.0)) == [0.0099, 0.9901]  # spills over by itself


def test_old_reports_do_not_count_and_utilization_is_smoothed() -> None:
    config = LoadAware(weight_expiration_period=10.0)
    state = ClusterState("c")
    balancer = ClusterBalancer(Cluster("c"), assignment(group([endpoint(1), endpoint(2)], "a")), state)
    first, second = balancer.hosts
    load = Load(config, balancer.hosts, local=True)
    load.update(0.0)
    assert (load.smoothed, load.stale, load.weight) == (None, False, 2.0)
    take_in_utilization(config, first, LoadReport(application_utilization=0.4), 0.0)
    take_in_utilization(config, second, LoadReport(cpu_utilization=0.8), 0.0)
    load.update(1.0)
    assert load.smoothed == pytest.approx(0.6)  # the first sample as it is
    take_in_utilization(config, first, LoadReport(application_utilization=1.0), 8.0)
    take_in_utilization(config, second, LoadReport(), 8.0)  # says nothing
    load.update(11.0)  # the second's is too old
    alpha = 1 - exp(-1 / 5)
    assert load.smoothed == pytest.approx(alpha * 1.0 + (1 - alpha) * 0.6)
    load.update(30.0)
    assert load.stale
    assert load.weight == 2.0


def test_requests_leave_a_busy_zone_and_come_back() -> None:
    zones = assignment(
        group((endpoint(n) for n in range(10)), "a"),
        group((endpoint(n) for n in range(10, 20)), "b"),
        group((endpoint(n) for n in range(20, 30)), "c"),
    )
    state, rng = ClusterState("c"), random.Random(3)
    balancer = ClusterBalancer(Cluster("c", load_aware=RAW), zones, state, None, None, HERE)
    used = {"a": 0.7, "b": 0.3, "c": 0.4}

    def picks() -> Counter[str]:
        found = [balancer.pick(None, EMPTY_STRUCT, rng) for _ in range(8000)]
        return Counter(host.locality.zone for host in found if host is not None)

    def report(now: float) -> float:
        for host in balancer.hosts:
            take_in_utilization(RAW, host, LoadReport(application_utilization=used[host.locality.zone]), now)
        return balancer.tick(now)

    assert picks() == {"a": 8000}
    assert report(1.0) == 2.0
    spilt = picks()
    assert [round(spilt[zone] / 8000, 1) for zone in "abc"] == [0.2, 0.4, 0.4]
    updated = assignment(*zones.localities[:2], group((endpoint(n) for n in range(20, 31)), "c"))
    balancer = ClusterBalancer(Cluster("c", load_aware=RAW), updated, state, balancer, None, HERE)
    assert picks()["a"] < 3000  # what was learnt is kept
    used["a"] = 0.4
    report(2.0)
    assert picks() == {"a": 8000}


def test_utilization_is_smoothed_once_in_a_period_however_often_time_is_told() -> None:
    """Ejections and other balancers of the cluster tell the time when they want to hear of it."""
    config = LoadAware(weight_update_period=1.0, smoothing_time_constant=5.0)
    zones = assignment(group([endpoint(1)], "a"), group([endpoint(2)], "b"))
    state = ClusterState("c")
    balancer = ClusterBalancer(Cluster("c", load_aware=config), zones, state, None, None, HERE)

    def smoothed() -> list[float | None]:
        (timed,) = balancer._compiled.timed()
        return [load.smoothed for load in timed._loads]  # type: ignore[attr-defined]

    take_in_utilization(config, balancer.hosts[0], LoadReport(application_utilization=0.2), 0.0)
    assert balancer.tick(0.0) == 1.0
    take_in_utilization(config, balancer.hosts[0], LoadReport(application_utilization=0.8), 0.0)
    for tenth in range(1, 10):
        assert balancer.tick(tenth / 10) == 1.0
        balancer.refresh()
        state.availability_changed()
    assert smoothed() == [0.2, None]
    assert balancer.tick(1.0) == 2.0
    assert smoothed() == [pytest.approx(0.2 + 0.6 * (1 - exp(-1 / 5))), None]


def test_a_monstrous_report_is_got_over() -> None:
    config = LoadAware(weight_expiration_period=0.0)
    state = ClusterState("c")
    balancer = ClusterBalancer(Cluster("c"), assignment(group([endpoint(1), endpoint(2)], "a")), state)
    load = Load(config, balancer.hosts, local=True)
    for used in (1e308, 0.5):
        for host in balancer.hosts:
            take_in_utilization(config, host, LoadReport(application_utilization=used), 0.0)
        for second in range(120):
            load.update(float(second))
    assert load.smoothed == pytest.approx(0.5, rel=0.01)


def test_decoded() -> None:
    policy = "type.googleapis.com/envoy.extensions.load_balancing_policies."
    child = {"name": "lr", "typed_config": {"@type": f"{policy}least_request.v3.LeastRequest"}}
    config = {
        "endpoint_picking_policy": {"policies": [{"typed_extension_config": child}]},
        "smoothing_time_constant": "2s",
        "remote_probe_fraction": 0.1,
    }
    struct = {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": f"{policy}load_aware_locality.v3.LoadAwareLocality",
        "value": config,
    }
    lb = {"policies": [{"typed_extension_config": {"name": "x", "typed_config": struct}}]}
    found = decode_message(message(CLUSTER, {"name": "c", "load_balancing_policy": lb}))
    assert isinstance(found.resource, Cluster)
    assert found.resource.load_aware == LoadAware(smoothing_time_constant=2.0, remote_probe_fraction=0.1)
    assert type(found.resource.lb_policy).__name__ == "LeastRequest"
    assert found.issues == ()
