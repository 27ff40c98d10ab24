"""Every scenario of the table through every door: one engine, so one answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from differential.calls_twin import bootstrap, virtual_host
from e2e.http_client.conftest import still_held
from e2e.scenarios.scenario_doors import DOORS, Door
from e2e.scenarios.scenario_fleets import NAMES, Fleet, GrpcFleet, HttpFleet
from e2e.scenarios.scenario_table import CHI_SQUARED_1, SCENARIOS, Calls, Scenario
from meshlib import Mesh
from meshlib.context import CallContext, serving
from parts.fast_backend import FastBackend
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

Json = dict[str, Any]


PAIRS = [(name, one) for one in SCENARIOS for name in DOORS if not (one.not_for and name.startswith(one.not_for))]


@pytest.fixture
def door(request: pytest.FixtureRequest, grpc_stubs: Stubs) -> Door:
    return DOORS[request.param](grpc_stubs)


@pytest.fixture
def fleet(
    door: Door, fast_backend: Callable[..., FastBackend], echo_backends: Callable[[int], list[GrpcBackend]]
) -> Fleet:
    return GrpcFleet(echo_backends) if door.fleet == "grpc" else HttpFleet(fast_backend)


@pytest.fixture
def play(door: Door, fleet: Fleet, tmp_path: Path) -> Iterator[Callable[[Scenario], None]]:
    """play(scenario): put it in force and open the door. What was taken must be given back in the end."""
    meshes: list[Mesh] = []

    def start(scenario: Scenario) -> None:
        path = tmp_path / "mesh.json"
        path.write_text(json.dumps(configuration(scenario, fleet)))
        for name, how in scenario.behaviour.items():
            fleet.behave(name, how)
        mesh = Mesh.from_file(path, unknown_hosts="reject", seed=11, breakers=scenario.breakers)
        meshes.append(mesh.start().wait_ready())
        assert not [issue for issue in mesh.issues if issue.severity == "error"], mesh.issues
        door.open(mesh)

    yield start
    if meshes:
        door.close()
    for mesh in meshes:
        mesh.close()
        assert still_held(mesh) == {}


def configuration(scenario: Scenario, fleet: Fleet) -> Json:
    clusters = [
        {
            "name": name,
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [locality(fleet, level, names) for level, names in enumerate(priorities)],
            },
            **scenario.settings.get(name, {}),
        }
        for name, priorities in scenario.clusters.items()
    ]
    return bootstrap([virtual_host(list(scenario.routes))], clusters, scenario.filters)


def locality(fleet: Fleet, priority: int, names: tuple[str, ...]) -> Json:
    addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": fleet.port(name)}} for name in names]
    return {"priority": priority, "lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}


@pytest.mark.parametrize("door, scenario", PAIRS, ids=[f"{name}: {one.name}" for name, one in PAIRS], indirect=["door"])
def test_every_door(scenario: Scenario, door: Door, fleet: Fleet, play: Callable[[Scenario], None]) -> None:
    play(scenario)
    for calls in scenario.calls:
        judge(calls, make(door, calls))
    assert {name: fleet.arrivals(name) for name in scenario.arrivals} == scenario.arrivals


def make(door: Door, calls: Calls) -> list[str]:
    count = calls.count or len(calls.ends)
    if calls.together:
        return door.together(count, calls.headers)
    ended = []
    for _ in range(count):
        began = time.monotonic()
        deadline = None if calls.deadline is None else began + calls.deadline
        with serving(CallContext(deadline)):
            ended.append(door.call(calls.headers))
        assert calls.within is None or time.monotonic() - began < calls.within
    return ended


def judge(calls: Calls, ended: list[str]) -> None:
    match calls.ends:
        case tuple() as ends:
            assert ended == list(ends)
        case dict() as shares if calls.together or set(shares) == set(NAMES):
            assert Counter(ended) == {
                name: share * len(ended) // sum(shares.values()) for name, share in shares.items()
            }
        case dict() as shares:
            expected = {name: share * len(ended) / sum(shares.values()) for name, share in shares.items()}
            found = Counter(ended)
            assert set(found) <= set(shares)
            assert sum((found[name] - want) ** 2 / want for name, want in expected.items()) < CHI_SQUARED_1, found
