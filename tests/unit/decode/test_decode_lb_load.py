"""Balancers that go by weights, time and load: every field, Envoy's defaults, and what is reported."""

from typing import Any

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.lb import ClientSideWeightedRoundRobin, LbPolicy, LeastRequest, PeakEwma, RoundRobin, SlowStart
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER
from parts import xds_resources as xds

LB = "type.googleapis.com/envoy.extensions.load_balancing_policies"
SLOW = {"slow_start_config": {"slow_start_window": "60s"}}


def cluster(**fields: Any) -> tuple[LbPolicy, list[tuple[str, str]]]:
    __import__("xds.type.v3.typed_struct_pb2")
    found = decode_message(xds.message(CLUSTER, xds.eds_cluster(**fields)))
    assert isinstance(found.resource, Cluster)
    return found.resource.lb_policy, [
        (issue.path.rpartition("typed_config.")[2], issue.reason) for issue in found.issues
    ]


def extension(kind: str, **config: Any) -> tuple[LbPolicy, list[tuple[str, str]]]:
    typed = {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": f"{LB}.{kind}", "value": config}
    return cluster(
        load_balancing_policy={"policies": [{"typed_extension_config": {"name": "n", "typed_config": typed}}]}
    )


@pytest.mark.parametrize(
    "config,expected",
    [
        ({}, None),
        ({"slow_start_window": "0s"}, None),
        ({"slow_start_window": "90s"}, SlowStart(90.0)),
        (
            {
                "slow_start_window": "1.5s",
                "aggression": {"default_value": 2.5, "runtime_key": "x"},
                "min_weight_percent": {"value": 0},
            },
            SlowStart(1.5, 2.5, 0.0),
        ),
    ],
)
def test_slow_start(config: dict[str, Any], expected: SlowStart | None) -> None:
    given = {"slow_start_config": config}
    assert cluster(lb_policy="ROUND_ROBIN", round_robin_lb_config=given) == (RoundRobin(expected), [])
    assert cluster(lb_policy="LEAST_REQUEST", least_request_lb_config=given) == (LeastRequest(slow_start=expected), [])
    assert extension("round_robin.v3.RoundRobin", **given) == (RoundRobin(expected), [])
    assert extension("least_request.v3.LeastRequest", **given) == (LeastRequest(slow_start=expected), [])
    assert extension("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", **given) == (
        ClientSideWeightedRoundRobin(slow_start=expected),
        [],
    )


def test_an_aggression_that_is_none_is_reported() -> None:
    config = {"slow_start_window": "60s", "aggression": {"default_value": 0, "runtime_key": "x"}}
    policy, issues = extension("round_robin.v3.RoundRobin", slow_start_config=config)
    assert policy == RoundRobin(SlowStart(60.0))
    assert issues == [("slow_start_config.aggression", "0.0 is not above 0; 1.0 is used, as in Envoy")]


@pytest.mark.parametrize(
    "config,expected",
    [
        ({"selection_method": "N_CHOICES", "choice_count": 5}, LeastRequest(5)),
        ({"selection_method": "FULL_SCAN"}, LeastRequest(full_scan=True)),
        ({"enable_full_scan": True}, LeastRequest(full_scan=True)),
        ({"enable_full_scan": False}, LeastRequest()),
        (
            {"active_request_bias": {"default_value": 0, "runtime_key": "x"}, **SLOW},
            LeastRequest(active_request_bias=0.0, slow_start=SlowStart(60.0)),
        ),
    ],
)
def test_least_request(config: dict[str, Any], expected: LeastRequest) -> None:
    assert extension("least_request.v3.LeastRequest", **config) == (expected, [])


def test_client_side_weighted_round_robin() -> None:
    kind = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
    assert extension(kind) == (ClientSideWeightedRoundRobin(), [])
    every = {
        "enable_oob_load_report": True,
        "oob_reporting_period": "20s",
        "blackout_period": "1s",
        "weight_expiration_period": "2s",
        "weight_update_period": "3s",
        "error_utilization_penalty": 0.5,
        "metric_names_for_computing_utilization": ["named_metrics.a", "utilization.b"],
    }
    names = ("named_metrics.a", "utilization.b")
    assert extension(kind, **every) == (ClientSideWeightedRoundRobin(1.0, 2.0, 3.0, 0.5, names, 20.0), [])
    assert extension(kind, enable_oob_load_report=True)[0] == ClientSideWeightedRoundRobin(oob_reporting_period=10.0)
    assert extension(kind, oob_reporting_period="20s")[0] == ClientSideWeightedRoundRobin()


def test_a_penalty_below_zero_is_refused_as_in_envoy() -> None:
    with pytest.raises(ResourceError):
        extension("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", error_utilization_penalty=-1.0)


@pytest.mark.parametrize("version", ["v3alpha", "v3"])
def test_peak_ewma(version: str) -> None:
    kind = f"peak_ewma.{version}.PeakEwma"
    assert extension(kind) == (PeakEwma(), [])
    every = {"decay_time": "5s", "default_rtt": "0.1s", "penalty_value": 7, "max_samples_per_host": 5}
    assert extension(kind, **every) == (PeakEwma(5.0, 0.1, 7.0), [])
