"""Checks over updates, restarts and forks; only those of ejected endpoints; and a great many of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.health.checked import HTTP, attempts, becomes, health, often
from meshlib import Mesh, UpstreamConnectError
from meshlib.engine.events import EndpointReachable, EndpointReturned
from meshlib.health.checks import MAX_IN_FLIGHT
from meshlib.model.backoff import BackoffPolicy
from meshlib.model.cluster import Cluster, OutlierDetection
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.health import HttpHealthCheck, TcpHealthCheck
from meshlib.sources.static import StaticSource, static_cluster, static_snapshot
from parts.fast_backend import FastBackend, Reply
from parts.xds import eventually

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


def update(mesh: Mesh, **clusters: Cluster) -> None:
    source = mesh.source
    assert isinstance(source, StaticSource)
    source.replace(static_snapshot(clusters))


def up(*backends: FastBackend, **more: Any) -> Cluster:
    cluster = static_cluster("up", [each.address for each in backends], health_checks=[often(**more)])
    return replace(cluster, healthy_panic_threshold=0.0)


def test_updates_keep_health_and_schedule(static: Static, fast_backend: Fast) -> None:
    sick, well = fast_backend("sick", Reply(503)), fast_backend("well")
    slow = {"interval": 30.0, "no_traffic_interval": 30.0}
    mesh = static({"up": up(sick, well, **slow)})
    expected = {sick.port: "unhealthy", well.port: "healthy"}
    assert health(mesh) == expected
    for timeout in (2.0, 3.0, 4.0):
        update(mesh, up=replace(up(sick, well, **slow), connect_timeout=timeout))
        assert health(mesh) == expected
    assert attempts(mesh) == 2
    sick.behave()
    update(mesh, up=up(sick, well))  # other checks: they begin at once, with what is known
    becomes(mesh, {sick.port: "healthy", well.port: "healthy"})


def test_whoever_joins_waits_for_its_first_check(static: Static, fast_backend: Fast) -> None:
    well, late = fast_backend("well"), fast_backend("late", Reply(delay=0.3))
    mesh = static({"up": up(well)})
    update(mesh, up=up(well, late))
    assert health(mesh) == {well.port: "healthy", late.port: "unhealthy"}
    becomes(mesh, {well.port: "healthy", late.port: "healthy"})


def test_whoever_joins_may_be_left_out_of_the_reckoning(static: Static, fast_backend: Fast) -> None:
    well, late = fast_backend("well"), fast_backend("late", Reply(fault="hang"))
    mesh = static({"up": up(well)})
    update(mesh, up=replace(up(well, late), ignore_new_hosts_until_first_hc=True))
    _, joined = mesh.plan.clusters["up"].balancer.hosts
    assert joined.cell.probed is not None
    assert joined.cell.probed.flags() == ("failed_active_hc", "pending_active_hc")
    assert joined.leaving
    eventually(lambda: joined.cell.probed.flags() == ("failed_active_hc", "active_hc_timeout"), "no longer pending")
    assert not joined.leaving


def test_whoever_leaves_is_not_checked_any_more(static: Static, fast_backend: Fast) -> None:
    one, other = fast_backend("one"), fast_backend("other")
    mesh = static({"up": up(one, other)})
    update(mesh, up=up(one))
    eventually(lambda: not other.open_connections, "its connection is closed")
    seen = other.count
    before = one.count
    eventually(lambda: one.count > before + 4, "the other one is checked")
    assert other.count == seen


def test_without_checks_everybody_counts_again(static: Static, fast_backend: Fast) -> None:
    sick = fast_backend("sick", Reply(503))
    mesh = static({"up": up(sick)})
    assert health(mesh) == {sick.port: "unhealthy"}
    update(mesh, up=static_cluster("up", [sick.address]))
    becomes(mesh, {sick.port: "healthy"})


def test_who_is_out_of_reach_is_back_with_a_check(
    static: Static, fast_backend: Fast, free_port: Callable[[], int]
) -> None:
    port, far = free_port(), fast_backend("far")
    groups = (
        LocalityLbEndpoints((LbEndpoint(Address("127.0.0.1", port)),)),
        LocalityLbEndpoints((LbEndpoint(Address("127.0.0.1", far.port)),), priority=1),
    )
    cluster = replace(up(far), load_assignment=ClusterLoadAssignment("up", groups), health_checks_when="ejected")
    mesh = static({"up": cluster}, failover_timeout=5.0)
    assert mesh._reach is not None
    mesh._reach._backoff = BackoffPolicy(base=60.0)  # it is not to be the one who finds out
    seen: list[Any] = []
    mesh.on_event(seen.append)
    with mesh.http.client() as client:
        assert who(client) == "nobody"
        eventually(lambda: who(client) == "far", "the others are called")
        fast_backend("near", port=port)
        eventually(lambda: [event for event in seen if isinstance(event, EndpointReachable)], "the check finds it")
        eventually(lambda: who(client) == "near", "and so do calls")


def who(client: Any) -> str:
    try:
        return str(client.get("http://up/").headers["x-backend"])
    except UpstreamConnectError:
        return "nobody"


def test_closing_ends_the_checks_and_what_they_found(fast_backend: Fast) -> None:
    sick = fast_backend("sick", Reply(503))
    mesh = Mesh.static({"up": up(sick)}).wait_ready()
    assert health(mesh) == {sick.port: "unhealthy"}
    mesh.close()
    assert health(mesh) == {sick.port: "healthy"}
    assert not [each for each in threading.enumerate() if each.name == "meshlib-health"]
    seen = sick.count
    mesh.start().wait_ready()
    assert health(mesh) == {sick.port: "unhealthy"}
    assert sick.count > seen
    mesh.close()


def test_a_forked_child_checks_for_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("forking_checked.py"))], timeout=60, check=False
    )
    assert done.returncode == 0


# Only when somebody asks --------------------------------------------------------------------------------------------


def suspicious(*backends: FastBackend) -> Cluster:
    outliers = OutlierDetection(consecutive_5xx=2, max_ejection_percent=100, base_ejection_time=60.0)
    return replace(up(*backends), outlier_detection=outliers, health_checks_when="ejected")


def test_only_who_was_ejected_is_checked_and_comes_back_by_it(static: Static, fast_backend: Fast) -> None:
    state = {"health": Reply(503), "calls": Reply(500)}
    broken = fast_backend("broken", lambda request: state["health" if request.target == "/healthz" else "calls"])
    mesh = static({"up": suspicious(broken, fast_backend("well"))})
    seen: list[Any] = []
    mesh.on_event(seen.append)
    assert attempts(mesh) == 0
    (cell,) = [cell for cell in mesh.runtime.state.clusters["up"].endpoints.values() if cell.address == broken.address]
    with mesh.http.client() as client:
        for _ in range(8):
            client.get("http://up/")
        assert cell.ejected
        eventually(lambda: attempts(mesh) > 2, "it is checked")
        assert cell.ejected
        state["health"] = state["calls"] = Reply()
        eventually(lambda: not cell.ejected, "the check brings it back")
        eventually(lambda: cell.usable, "and finds it well")
        assert [event.endpoint for event in seen if isinstance(event, EndpointReturned)] == [broken.address]
        checks = attempts(mesh)
        assert {client.get("http://up/").headers["x-backend"] for _ in range(20)} == {"broken", "well"}
    time.sleep(0.3)
    assert attempts(mesh) <= checks + 1, "and is left alone"


def test_who_fails_its_checks_stays_out_longer_than_it_was_ejected_for(static: Static, fast_backend: Fast) -> None:
    broken = fast_backend("broken", Reply(500))
    cluster = suspicious(broken, fast_backend("well"))
    assert cluster.outlier_detection is not None
    short = replace(cluster.outlier_detection, base_ejection_time=0.3)
    mesh = static({"up": replace(cluster, outlier_detection=short)})
    with mesh.http.client() as client:
        for _ in range(8):
            client.get("http://up/")
        (cell,) = [each for each in mesh.runtime.state.clusters["up"].endpoints.values() if each.ejected]
        eventually(lambda: client.get("http://up/") and not cell.ejected, "its time is over")
        assert cell.probed is not None
        assert cell.probed.failed
        assert {client.get("http://up/").headers["x-backend"] for _ in range(20)} == {"well"}
        broken.behave()
        eventually(lambda: cell.usable, "it is well")


# Many ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [HTTP, TcpHealthCheck()], ids=["http", "tcp"])
def test_a_thousand_endpoints(static: Static, fast_backend: Fast, check: HttpHealthCheck | TcpHealthCheck) -> None:
    """Each has an address of its own (127.1.x.y) on one server."""
    backend = fast_backend("up", host="0.0.0.0")
    addresses = [f"127.1.{number // 250}.{number % 250 + 1}:{backend.port}" for number in range(1000)]
    paced = often(check, interval=1.0, no_traffic_interval=1.0, initial_jitter=1.0, interval_jitter_percent=20)
    began = time.monotonic()
    mesh = static({"up": static_cluster("up", addresses, health_checks=[paced])})
    assert time.monotonic() - began < 10.0
    assert set(health_by_address(mesh).values()) == {"healthy"}
    threads = [each for each in threading.enumerate() if each.name == "meshlib-health"]
    assert len(threads) == 1
    before, used = attempts(mesh), cpu(threads[0])
    time.sleep(3.0)
    checks, spent = attempts(mesh) - before, cpu(threads[0]) - used
    assert checks > 1500
    assert spent / checks < 0.002, f"{1e6 * spent / checks:.0f} us of processor time each"
    assert mesh.stats()["cluster.up.health_check.failure"] == 0
    assert len(list(Path("/proc/self/fd").iterdir())) < 2 * 1000 + 300  # both ends of a connection to each
    mesh.close()  # before its endpoints end


def test_those_that_hang_are_asked_a_few_at_a_time(fast_backend: Fast) -> None:
    backend = fast_backend("up", Reply(fault="hang"), host="0.0.0.0")
    addresses = [f"127.1.{number // 250}.{number % 250 + 1}:{backend.port}" for number in range(700)]
    patient = often(timeout=0.5, interval=60.0, no_traffic_interval=60.0)
    with Mesh.static({"up": static_cluster("up", addresses, health_checks=[patient])}) as mesh:
        most = 0
        hosts = mesh.plan.clusters["up"].balancer.hosts
        until = time.monotonic() + 30.0
        while any(host.cell.usable for host in hosts):
            most = max(most, len(backend.open_connections))
            assert time.monotonic() < until
            time.sleep(0.01)
        assert MAX_IN_FLIGHT // 2 < most <= MAX_IN_FLIGHT + 100  # the server hears of an end a little later
        eventually(lambda: not backend.open_connections, "nothing is left open")


def test_a_mesh_without_checks_has_nothing_of_them(static: Static, fast_backend: Fast) -> None:
    mesh = static({"up": static_cluster("up", [fast_backend("up").address])})
    with mesh.http.client() as client:
        assert client.get("http://up/").status_code == 200
    assert "health_checks" not in mesh.__dict__
    assert mesh.plan.clusters["up"].observe is None
    assert not [each for each in threading.enumerate() if each.name == "meshlib-health"]


def health_by_address(mesh: Mesh) -> dict[str, str]:
    return {host.address: host.availability for host in mesh.plan.clusters["up"].balancer.hosts}


def cpu(thread: threading.Thread) -> float:
    """Seconds of processor time it has used."""
    fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
