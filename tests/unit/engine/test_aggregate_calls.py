"""Calls to aggregate clusters: which cluster an attempt belongs to, and what of it counts."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.aggregate import AggregatePlan
from meshlib.engine.commands import Commit, Fail, Query, Start, Wait
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.cluster import CircuitBreakers, Cluster, OutlierDetection, Thresholds
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.outcome import Failure
from meshlib.model.report import ResourceError
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ENDED, Player, held, runtime_of

FIRST = "10.0.0.1:80"


def row(name: str, *children: str, **fields: Any) -> Cluster:
    return Cluster(name, "AGGREGATE", clusters=children, **fields)


def leaf(name: str, *healths: Any, **fields: Any) -> Cluster:
    number = ord(name[0])
    endpoints = tuple(
        LbEndpoint(Address(f"10.0.{number}.{index}", 80), health_status=health) for index, health in enumerate(healths)
    )
    group = LocalityLbEndpoints(endpoints)
    return Cluster(name, load_assignment=ClusterLoadAssignment(name, (group,)), **fields)


def mesh(*clusters: Cluster, **options: Any) -> Runtime:
    found: dict[str, Any] = {cluster.name: cluster for cluster in clusters}
    return runtime_of(static_snapshot(found, routes={"payments": clusters[-1].name}, **options))


def reached(runtime: Runtime, count: int = 400) -> Counter[str]:
    """The clusters of so many calls; each is answered."""
    found: Counter[str] = Counter()
    for _ in range(count):
        call = Player(runtime)
        start = call.last
        assert isinstance(start, Start)
        assert start.info is not None
        assert start.info.cluster == start.cluster.name
        found[start.cluster.name] += 1
        assert isinstance(call.responds(200, 1.0), Commit)
        assert call.body_ends(1.0) is ENDED
    assert held(runtime) == {}
    return found


def test_the_first_cluster_has_all_while_it_is_healthy_and_the_child_is_counted() -> None:
    runtime = mesh(leaf("a", "HEALTHY"), leaf("b", "HEALTHY"), row("all", "a", "b"))
    assert reached(runtime, 50) == {"a": 50}
    clusters = runtime.plan.clusters
    assert clusters["a"].stats["upstream_rq_total"].value == 50
    assert clusters["a"].stats["upstream_rq_2xx"].value == 50
    assert clusters["all"].stats["upstream_rq_total"].value == 0


def test_the_load_spills_over_by_health() -> None:
    half = leaf("a", "HEALTHY", "UNHEALTHY")  # 1.4 x 50 % = 70 %
    found = reached(mesh(half, leaf("b", "HEALTHY"), row("all", "a", "b")), 2000)
    assert found["a"] / 2000 == pytest.approx(0.70, abs=0.05)
    own = replace(half.load_assignment or ClusterLoadAssignment("a"), overprovisioning_factor=100)
    found = reached(mesh(replace(half, load_assignment=own), leaf("b", "HEALTHY"), row("all", "a", "b")), 2000)
    assert found["a"] / 2000 == pytest.approx(0.50, abs=0.05)


def test_clusters_without_hosts_and_those_that_do_not_exist_are_passed_over() -> None:
    runtime = mesh(leaf("a"), leaf("b", "HEALTHY"), row("all", "nobody", "a", "b"))
    assert reached(runtime, 20) == {"b": 20}
    nothing = mesh(leaf("a"), row("all", "a"))
    failed = Player(nothing).last
    assert isinstance(failed, Fail)
    assert failed.failure.flag is ResponseFlag.UH


def test_aggregates_of_aggregates_are_one_row() -> None:
    runtime = mesh(
        leaf("a", "UNHEALTHY", healthy_panic_threshold=0.0), leaf("b", "UNHEALTHY", healthy_panic_threshold=0.0),
        leaf("c", "HEALTHY"), row("inner", "b", "a"), row("all", "a", "inner", "c", healthy_panic_threshold=0.0),
    )  # fmt: skip
    plan = runtime.plan.clusters["all"]
    assert isinstance(plan, AggregatePlan)
    assert [child.name for child in plan.children] == ["a", "b", "c"]
    assert reached(runtime, 20) == {"c": 20}


def test_loops_and_too_deep_a_nesting_are_refused_and_the_good_configuration_stays() -> None:
    with pytest.raises(ResourceError, match="leads to itself: inner → all → inner"):
        mesh(row("inner", "all"), row("all", "inner"))
    deep = [row(f"r{number}", f"r{number + 1}") for number in range(17)]
    with pytest.raises(ResourceError, match="16 deep"):
        mesh(leaf("r17", "HEALTHY"), *reversed(deep))
    assert reached(mesh(leaf("r16", "HEALTHY"), *reversed(deep[:16])), 3) == {"r16": 3}


def test_a_retry_may_go_to_another_child_and_gives_back_what_it_holds() -> None:
    runtime = mesh(leaf("a", "HEALTHY", "UNHEALTHY"), leaf("b", "HEALTHY"), row("all", "a", "b"), retries=3)
    seen: set[tuple[str, str]] = set()
    for _ in range(60):
        call = Player(runtime)
        first = call.last.cluster.name
        assert isinstance(call.fails(Failure.CONNECT, 1.0, sent=False), Wait)
        assert sum(len(cluster.default.retries) for cluster in runtime.state.clusters.values()) == 1
        start = call.send(1.1)
        seen.add((first, start.cluster.name))
        call.responds(200, 2.0)
        call.body_ends(2.0)
        loads = [cluster.default for cluster in runtime.state.clusters.values()]
        assert not any(load.retries or load.requests for load in loads)
    assert seen == {("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")}


def test_the_childs_limits_and_its_outlier_detection_count() -> None:
    limited = leaf("a", "HEALTHY", circuit_breakers=CircuitBreakers(Thresholds(max_requests=1)))
    runtime = mesh(limited, row("all", "a", circuit_breakers=CircuitBreakers(Thresholds(max_requests=100))))
    first = Player(runtime)
    second = Player(runtime).last
    assert isinstance(second, Fail)
    assert second.failure.flag is ResponseFlag.UO
    first.close()
    watched = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime = mesh(leaf("a", "HEALTHY", outlier_detection=watched), leaf("b", "HEALTHY"), row("all", "a", "b"))
    call = Player(runtime)
    assert call.last.cluster.name == "a"
    call.responds(503, 1.0)
    call.body_ends(1.0)
    assert Player(runtime, now=1.0).last.cluster.name == "b"  # the ejected endpoint takes its priority's health
    assert Player(runtime, now=100.0).last.cluster.name in "ab"


def test_hosts_in_panic_are_the_childs_own_affair() -> None:
    runtime = mesh(leaf("a", "UNHEALTHY", "UNHEALTHY"), row("all", "a", healthy_panic_threshold=0.0))
    # Nobody is healthy and the aggregate knows no panic: its first priority has the load, and there all hosts count.
    assert reached(runtime, 5) == {"a": 5}
    assert runtime.plan.clusters["a"].stats["lb_healthy_panic"].value == 5


def test_an_update_of_a_child_is_an_update_of_the_aggregate_and_no_other_is() -> None:
    clusters = [leaf("a", "HEALTHY"), leaf("b", "HEALTHY"), row("all", "a", "b")]
    runtime = mesh(*clusters)
    before = runtime.plan
    snapshot = before.snapshot
    same = runtime.compile(replace(snapshot, version="2"), before)
    assert same.clusters["all"] is before.clusters["all"]
    changed = {**snapshot.clusters, "a": leaf("a", "UNHEALTHY", healthy_panic_threshold=0.0)}
    runtime.install(runtime.compile(replace(snapshot, clusters=changed), before))
    assert runtime.plan.clusters["b"] is before.clusters["b"]
    assert reached(runtime, 5) == {"b": 5}
    assert runtime.plan.clusters["all"].aggregate is not None
    described = runtime.plan.clusters["all"].aggregate.describe()
    assert [(entry.priority, entry.healthy_load) for entry in described.priorities] == [(0, 0), (1, 100)]


class Looked:
    """What the mesh would give for the question: the names are looked up meanwhile."""

    def __init__(self, cluster: str, deadline: float) -> None:
        self.asked = (cluster, deadline)

    def ask(self) -> None: ...

    async def aask(self) -> None: ...


def test_a_call_waits_for_the_first_answer_about_names() -> None:
    named = static_cluster("payments", ["payments.test:80"])
    snapshot = static_snapshot({"payments": named})
    runtime = runtime_of(replace(snapshot, resolved={}))
    runtime.first_lookup = Looked
    call = Player(runtime, now=5.0, deadline=9.0)
    assert isinstance(call.last, Query)
    assert isinstance(call.last.question, Looked)
    assert call.last.question.asked == ("payments", 9.0)
    assignment = ClusterLoadAssignment("payments", (LocalityLbEndpoints((LbEndpoint(Address("10.0.0.1", 80)),)),))
    known = replace(snapshot, resolved={"payments": assignment})
    runtime.install(runtime.compile(known, runtime.plan))
    start = call.send((None, 5.5))
    assert isinstance(start, Start)
    assert start.host.address == FIRST
    call.close()
    assert isinstance(Player(runtime).last, Start)  # nobody waits any more


def test_an_aggregate_waits_for_the_names_of_what_comes_first_only() -> None:
    named, other = static_cluster("named", ["payments.test:80"]), leaf("a", "HEALTHY")
    for children, awaited in (
        (("named", "a"), True),
        (("a", "named"), False),
        (("nobody", "named"), True),
        (("b", "named"), True),
    ):
        clusters = {"named": named, "a": other, "b": leaf("b", "UNHEALTHY"), "payments": row("payments", *children)}
        snapshot = static_snapshot(clusters, routes={"payments": "payments"})
        runtime = runtime_of(replace(snapshot, resolved={}))
        runtime.first_lookup = Looked
        assert isinstance(Player(runtime).last, Query) is awaited, children


def test_a_name_that_is_not_looked_up_in_time_is_no_endpoint() -> None:
    named = static_cluster("payments", ["payments.test:80"])
    runtime = runtime_of(replace(static_snapshot({"payments": named}), resolved={}))
    runtime.first_lookup = Looked
    call = Player(runtime, now=5.0)
    assert call.last.question.asked == ("payments", 20.0)
    failed = call.send((None, 20.0))
    assert isinstance(failed, Fail)
    assert failed.failure.flag is ResponseFlag.UH
