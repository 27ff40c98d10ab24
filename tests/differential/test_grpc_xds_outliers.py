"""Outlier detection by shares of failures: grpcio's `xds:///` (gRFC A50) and a mesh's channels, one configuration."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from differential.grpc_xds_twin import World, endpoints_of, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import GrpcCall

Json = dict[str, Any]
INTERVAL = 1.0
OFF = {"enforcing_consecutive_5xx": 0, "enforcing_success_rate": 0, "enforcing_failure_percentage": 0}
COMMON = {"interval": f"{INTERVAL:g}s", "base_ejection_time": "60s", "max_ejection_percent": 50, **OFF}
RATE = {"success_rate_minimum_hosts": 3, "success_rate_request_volume": 10, "enforcing_success_rate": 100}
PERCENTAGE = {
    "failure_percentage_minimum_hosts": 3,
    "failure_percentage_request_volume": 10,
    "enforcing_failure_percentage": 100,
}
UNAVAILABLE = 14


@pytest.mark.parametrize(
    "detection,out",
    [
        ({**RATE, "success_rate_stdev_factor": 1500}, True),  # 0 and three times 100: threshold 10
        ({**RATE, "success_rate_stdev_factor": 1900}, False),  # threshold -7
        ({**RATE, "success_rate_request_volume": 1000}, False),
        (PERCENTAGE, True),
        ({**PERCENTAGE, "failure_percentage_minimum_hosts": 5}, False),
    ],
)
def test_who_fails_is_left_out_from_the_next_interval_on(
    xds_world: Callable[[], World], echo_backends: Callable[[int], list[GrpcBackend]], detection: Json, out: bool
) -> None:
    backends = echo_backends(4)
    world = xds_world()
    cluster = {"endpoints": endpoints_of(backends), "outlier_detection": {**COMMON, **detection}}
    world.put([route(world.cluster("all"))], {"all": cluster})
    backends[0].behave(statuses=[UNAVAILABLE])
    for ask in (world.theirs, world.ours):
        began = time.monotonic()
        ended = ask(*[GrpcCall()] * 120)
        assert sum(one.code != "OK" for one in ended) >= 20
        until = began + 2 * INTERVAL + 0.5  # whatever their intervals began with, a whole one has ended
        while time.monotonic() < until:
            ask(*[GrpcCall()] * 40)
            time.sleep(0.1)
        after = ask(*[GrpcCall()] * 40)
        assert sum(one.code != "OK" for one in after) == (0 if out else 10), ask.__name__
