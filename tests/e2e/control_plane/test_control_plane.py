"""ControlPlane over a directory, consumed by our own xDS source: what is in force equals what the files say."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from meshlib.control.control_plane import ControlPlane
from meshlib.model.report import Issue
from meshlib.model.snapshot import Snapshot
from meshlib.sources.files.loader import load
from meshlib.sources.files.snapshot import build_snapshot
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.source import XdsSource

ISTIO = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews}
spec:
  hosts: [reviews]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints:
  - {address: 127.0.0.1, labels: {version: v1}, ports: {http: 8001}}
  - {address: 127.0.0.1, labels: {version: v2}, ports: {http: 8002}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: WEIGHT}
    - {destination: {host: reviews, subset: v2}, weight: 10}
"""


class Recorder:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.snapshots: list[Snapshot] = []
        self.issues: list[Issue] = []

    def publish(self, snapshot: Snapshot) -> None:
        with self.changed:
            self.snapshots.append(snapshot)
            self.changed.notify_all()

    def report(self, issues: Sequence[Issue]) -> None:
        with self.changed:
            self.issues.extend(issues)

    def wait(self, holds: Callable[[Snapshot], bool], timeout: float = 10.0) -> Snapshot:
        with self.changed:
            assert self.changed.wait_for(lambda: bool(self.snapshots) and holds(self.snapshots[-1]), timeout)
            return self.snapshots[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 90)
    return tmp_path


def write(folder: Path, weight: int | str) -> None:
    new = folder / ".new"
    new.write_text(ISTIO.replace("WEIGHT", str(weight)))
    new.replace(folder / "reviews.yaml")


def from_files(folder: Path) -> Snapshot:
    snapshot, issues = build_snapshot(load([folder]))
    assert not [issue for issue in issues if issue.severity == "error"], issues
    return snapshot


def sidecar_part(snapshot: Snapshot) -> tuple[object, ...]:
    """What a wildcard subscriber sees: no API listeners, and no route configuration only they name. A listener that is
    for its port only is sent as one to be bound, because an Envoy has to.
    """
    found = {name: listener for name, listener in snapshot.listeners.items() if not listener.api}
    listeners = {name: replace(listener, bound=True) for name, listener in found.items()}
    named = {manager.routes for listener in listeners.values() for manager in listener.managers}
    routes = {name: table for name, table in snapshot.routes.items() if name in named}
    return listeners, routes, dict(snapshot.clusters), dict(snapshot.endpoints)


@pytest.mark.parametrize("delta", [False, True])
def test_subscribers_get_what_the_files_say(folder: Path, delta: bool) -> None:
    with ControlPlane(folder) as plane:
        node = Node("sidecar~127.0.0.1~app.default~default.svc.cluster.local")
        source, sink = XdsSource(Bootstrap((XdsServer(plane.address),), node), delta=delta), Recorder()
        source.start(sink)
        try:
            wanted = sidecar_part(from_files(folder))
            sink.wait(lambda snapshot: sidecar_part(snapshot) == wanted)

            write(folder, 50)
            wanted = sidecar_part(from_files(folder))
            sink.wait(lambda snapshot: sidecar_part(snapshot) == wanted)
            assert plane.version == 2

            edits, last = plane.edits, sink.snapshots[-1]
            write(folder, "many")
            assert plane.wait_for_edit(edits + 1)
            assert plane.refused
            (issue,) = (issue for issue in plane.issues if issue.severity == "error")
            assert (issue.file, issue.line) == (str(folder / "reviews.yaml"), 28)
            assert issue.path == "http[0].route[0].weight"
            assert plane.version == 2
            assert sink.snapshots[-1] is last

            write(folder, 10)
            assert plane.wait_for_version(3)
            wanted = sidecar_part(from_files(folder))
            sink.wait(lambda snapshot: sidecar_part(snapshot) == wanted)
            assert [subscriber.node_id for subscriber in plane.subscribers()] == [node.id]
            assert all(kind.last_nack is None for kind in plane.subscribers()[0].types)
        finally:
            source.close()


def test_a_proxyless_client_finds_a_service_by_host_and_port(folder: Path) -> None:
    name = "reviews.default.svc.cluster.local:9080"
    with ControlPlane(folder) as plane:
        source = XdsSource(Bootstrap((XdsServer(plane.address),), Node("app")), declared=[name])
        sink = Recorder()
        source.start(sink)
        try:
            snapshot = sink.wait(lambda snapshot: name in snapshot.listeners)
        finally:
            source.close()
    wanted = from_files(folder)
    assert snapshot.listeners[name] == wanted.listeners[name]
    (table,) = snapshot.routes.values()
    assert table == wanted.routes["outbound|9080||reviews.default.svc.cluster.local"]
    assert set(snapshot.clusters) == {f"outbound|9080|{v}|reviews.default.svc.cluster.local" for v in ("v1", "v2")}


def test_change_to_effect(folder: Path) -> None:
    with ControlPlane(folder) as plane:
        node = Node("sidecar~127.0.0.1~app.default~default.svc.cluster.local")
        source, sink = XdsSource(Bootstrap((XdsServer(plane.address),), node)), Recorder()
        source.start(sink)
        delays = []
        try:
            sink.wait(lambda snapshot: "9080" in snapshot.routes)
            for weight in range(100, 130):
                began = time.perf_counter()
                write(folder, weight)
                sink.wait(lambda snapshot, w=weight: f"weight={w}," in repr(snapshot.routes.get("9080")))  # type: ignore[misc]
                delays.append((time.perf_counter() - began) * 1000)
        finally:
            source.close()
    delays.sort()
    sys.stdout.write(f"\nfile to subscriber in force: p50 {delays[15]:.1f} ms, max {delays[-1]:.1f} ms\n")
    assert delays[15] < 100  # the promise of 50 ms at p99 is for `make bench`; here only that nothing waits


def test_a_first_version_with_errors_serves_nothing_until_repaired(folder: Path) -> None:
    write(folder, "many")
    with ControlPlane(folder) as plane:
        assert plane.version == 0
        assert plane.refused
        write(folder, 1)
        assert plane.wait_for_version(1)
        assert not plane.refused


def test_a_start_that_fails_gives_the_address_back(folder: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    with pytest.raises(TimeoutError):
        ControlPlane(folder, port=port).start(timeout=0.0)
    with ControlPlane(folder, port=port) as plane:
        assert plane.version == 1


def test_an_address_in_use_is_an_error(folder: Path) -> None:
    with ControlPlane(folder) as plane:
        port = int(plane.address.rpartition(":")[2])
        with pytest.raises(OSError, match="cannot serve ADS"):
            ControlPlane(folder, port=port).start()
