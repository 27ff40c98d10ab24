"""Updates of many endpoints: what stays the same is the same object, and calls never compile a large cluster."""

import random
from dataclasses import replace

import pytest

from meshlib.balancing import view as view_module
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.lb import LbPolicy, LeastRequest, Maglev, RingHash, RoundRobin
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.snapshot import Snapshot
from meshlib.state.cells import ClusterState, Ejection

CLUSTERS, EACH = 100, 100


def assignment(cluster: int, count: int, first_weight: int = 1) -> ClusterLoadAssignment:
    endpoints = tuple(
        LbEndpoint(Address(f"10.{cluster}.{number >> 8}.{number & 255}", 80), first_weight if number == 0 else 1)
        for number in range(count)
    )
    return ClusterLoadAssignment(f"c{cluster}", (LocalityLbEndpoints(endpoints),))


def large() -> Snapshot:
    names = range(CLUSTERS)
    return Snapshot(
        clusters={f"c{number}": Cluster(f"c{number}", "EDS") for number in names},
        endpoints={f"c{number}": assignment(number, EACH) for number in names},
    )


def test_one_endpoint_of_ten_thousand_changes_one_host_of_one_cluster() -> None:
    runtime = Runtime(random.Random(1))
    first = large()
    runtime.install(runtime.compile(first, runtime.plan), 0.0)
    before = runtime.plan.clusters
    busy = before["c7"].balancer.hosts[5]
    busy.cell.live[object()] = None
    changed = {**first.endpoints, "c7": assignment(7, EACH, 3)}
    runtime.install(runtime.compile(replace(first, endpoints=changed), runtime.plan), 1.0)
    after = runtime.plan.clusters
    assert [name for name in after if after[name] is not before[name]] == ["c7"]
    old, new = before["c7"].balancer.hosts, after["c7"].balancer.hosts
    assert [number for number in range(EACH) if old[number] is not new[number]] == [0]
    assert all(one.cell is other.cell for one, other in zip(old, new, strict=True))
    assert new[5].cell.active == 1


def test_the_same_endpoints_decoded_again_change_nothing() -> None:
    runtime = Runtime(random.Random(1))
    runtime.install(runtime.compile(large(), runtime.plan), 0.0)
    before = runtime.plan.clusters
    runtime.install(runtime.compile(large(), runtime.plan), 1.0)
    assert all(runtime.plan.clusters[name] is plan for name, plan in before.items())


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        (RoundRobin(), 10_000),
        (LeastRequest(), 10_000),
        (RingHash(), 10_000),
        (RingHash(minimum_ring_size=8_192), 20),  # a small cluster with a large ring
        (Maglev(table_size=8_191), 20),
    ],
)
def test_no_pick_compiles_what_takes_long(policy: LbPolicy, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    state, rng = ClusterState("c"), random.Random(1)
    balancer = ClusterBalancer(Cluster("c", lb_policy=policy), assignment(1, count), state)
    compiled = 0
    original = view_module._Compiler.view

    def counted(*given: object) -> object:
        nonlocal compiled
        compiled += 1
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(view_module._Compiler, "view", counted)
    hosts = balancer.hosts
    for number in range(5):  # availability changes, and nobody has refreshed yet
        hosts[number].cell.ejection = Ejection(0.0, 1.0, "test")
        state.availability_changed()
        picked = {balancer.pick(rng.getrandbits(64), EMPTY_STRUCT, rng) for _ in range(40)}
        assert picked.isdisjoint(hosts[: number + 1])  # an ejected host is passed over all the same
    assert compiled == 0
    assert balancer.needs_refresh
    balancer.refresh()
    assert compiled == 1


def test_a_table_is_built_anew_only_where_its_endpoints_have_changed() -> None:
    state = ClusterState("c")
    cluster = Cluster("c", lb_policy=RingHash())
    near = assignment(1, 50).localities
    far = tuple(replace(group, priority=1) for group in assignment(2, 50, 1).localities)
    (group,) = near
    sick = tuple(replace(one, health_status="UNHEALTHY") for one in group.endpoints[:25])
    down = (replace(group, endpoints=(*sick, *group.endpoints[25:])),)
    first = ClusterBalancer(cluster, ClusterLoadAssignment("c", (*down, *far)), state)
    grown = tuple(replace(group, endpoints=group.endpoints[:-1]) for group in down)
    second = ClusterBalancer(cluster, ClusterLoadAssignment("c", (*grown, *far)), state, first)
    assert first.whole().of(1) is second.whole().of(1)
    assert first.whole().of(0) is not second.whole().of(0)
