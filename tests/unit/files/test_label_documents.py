"""`LaneGroup` and `NearbyRouting`: what they write on which clusters, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.model.lanes import LaneRamp, Nearby
from meshlib.sources.files.loader import load
from meshlib.sources.files.snapshot import build_snapshot

SERVICES = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop}
spec:
  hosts: [payments, orders.shop.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1, labels: {lane: gray, security.istio.io/tlsMode: disabled}}]
---
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: plain
load_assignment:
  cluster_name: plain
  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.2, port_value: 80}}}}]}]
---
"""


def lanes(spec: str, kind: str = "LaneGroup") -> str:
    return f"apiVersion: meshlib.dev/v1\nkind: {kind}\nmetadata: {{name: group}}\nspec: {spec}\n"


def read(tmp_path: Path, document: str):
    (tmp_path / "mesh.yaml").write_text(SERVICES + document)
    return build_snapshot(load([tmp_path]))


def test_a_group_is_written_on_every_cluster_of_its_services(tmp_path: Path) -> None:
    snapshot, issues = read(tmp_path, lanes("{services: [plain, orders.shop.example], fallback: STRICT}"))
    assert not issues
    laned = {name for name, cluster in snapshot.clusters.items() if cluster.lanes is not None}
    assert laned == {"plain", "outbound|80||orders.shop.example"}
    group = snapshot.clusters["plain"].lanes
    assert group is not None
    assert (group.name, group.label, group.strict) == ("group", "lane", True)


def test_the_words_of_istio_and_kubernetes_become_the_models(tmp_path: Path) -> None:
    spec = """
  services: [payments]
  label: colour
  lanes:
  - name: gray
    match: [{headers: {x-tag: {exact: beta}}, queryParams: {v: {exact: "2"}}}, {uri: {prefix: /beta}}]
    share: 12.5
    by: {queryParameter: user}
    warmUp: {start: 2026-11-21T12:00:00+01:00, duration: 1h30m, curvature: 2}
"""
    snapshot, issues = read(tmp_path, lanes(spec))
    assert not issues
    group = snapshot.clusters["outbound|80||payments.default.svc.cluster.local"].lanes
    assert group is not None
    (gray,) = group.lanes
    assert [match.path.value for match in gray.matches] == ["/", "/beta"]
    assert gray.matches[0].headers[0].name == "x-tag"
    assert (group.label, gray.share, gray.by[0].kind, gray.by[0].name) == ("colour", 12.5, "query_parameter", "user")
    assert gray.ramp == LaneRamp(1795258800.0, 5400.0, 2.0)


def test_labels_of_workloads_are_there_to_go_by(tmp_path: Path) -> None:
    snapshot, _ = read(tmp_path, lanes("{services: [payments]}"))
    cluster = snapshot.clusters["outbound|80||payments.default.svc.cluster.local"]
    assignment = snapshot.assignment(cluster)
    assert assignment is not None
    (endpoint,) = assignment.localities[0].endpoints
    assert endpoint.metadata.namespace("meshlib.labels").items == (("lane", "gray"),)


def test_nearness(tmp_path: Path) -> None:
    spec = "{services: [plain], level: sub_zone, maxLevel: region, strict: true}"
    snapshot, issues = read(tmp_path, lanes(spec, "NearbyRouting") + "---\n" + lanes("{services: [plain]}"))
    assert not issues
    assert snapshot.clusters["plain"].nearby == Nearby(0, 2, strict=True)
    assert snapshot.clusters["plain"].lanes is not None  # both on one cluster


@pytest.mark.parametrize(
    "document, told",
    [
        (lanes("{services: [paymnts]}"), "services[0]: no cluster is called 'paymnts' (there are "),
        (lanes("{lanes: []}"), "LaneGroup needs 'services'"),
        (lanes("{services: [plain], fallback: maybe}"), "'maybe' is not known here"),
        (lanes("{services: [plain], lanes: [{share: 5}]}"), "a lane needs 'name'"),
        (lanes("{services: [plain], lanes: [{name: a, share: 101}]}"), "101 is out of range"),
        (lanes("{services: [plain], lanes: [{name: a, by: {header: x, cookie: y}}]}"), "exclude each other"),
        (lanes("{services: [plain], lanes: [{name: a b}]}"), "'a b' may hold only letters"),
        (lanes("{services: [plain], lvl: zone}", "NearbyRouting"), "NearbyRouting has no field 'lvl'"),
        (lanes("{services: [plain]}", "LaneGrup"), "LaneGrup (meshlib.dev/v1) is not used from files"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, document: str, told: str) -> None:
    _, issues = read(tmp_path, document)
    assert [issue for issue in issues if told in str(issue) and issue.line > 10], list(map(str, issues))


@pytest.mark.parametrize("kind", ["LaneGroup", "NearbyRouting"])
def test_a_service_is_in_one_and_the_others_are_told(tmp_path: Path, kind: str) -> None:
    first, second = (lanes("{services: [plain]}", kind).replace("name: group", f"name: {name}") for name in "ab")
    snapshot, issues = read(tmp_path, f"{first}---\n{second}")
    assert [str(issue).partition(": error: ")[2] for issue in issues] == [
        f"{kind} default/b: services[0]: 'plain' is in {kind} default/a already, which counts (a service is in one)"
    ]
    group = snapshot.clusters["plain"].lanes
    assert group is None or group.name == "a"
