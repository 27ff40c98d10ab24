import json
import os
from pathlib import Path

import pytest

from meshlib.model.lb import LeastRequest
from meshlib.sources.files.loader import Loader, load
from meshlib.sources.files.snapshot import build_snapshot

CLUSTER = """\
name: {name}
connect_timeout: 1s
load_assignment:
  cluster_name: {name}
  endpoints:
  - lb_endpoints:
    - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 8001}}}}}}
"""
ROUTES = """\
name: routes
virtual_hosts:
- name: payments
  domains: [payments]
  routes:
  - match: {prefix: /}
    route: {cluster: payments}
"""
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
BOOTSTRAP = f"""\
node: {{id: app}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources: {{}}
static_resources:
  listeners:
  - name: ingress
    address: {{socket_address: {{address: 127.0.0.1, port_value: 8080}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {HCM}
          stat_prefix: ingress
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: CLUSTER_NAME}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": {ROUTER}}}
  clusters:
  - name: payments
    connect_timeout: 1s
    lb_policy: LEAST_REQUEST
    load_assignment:
      cluster_name: payments
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}}}}}]
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def lines_of(folder: Path, *paths: Path) -> list[str]:
    _, issues = build_snapshot(load(paths or [folder]))
    return [str(issue).replace(f"{folder}{os.sep}", "") for issue in issues]


def test_single_resources_by_their_shape(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=CLUSTER.format(name="payments") + "---\n" + ROUTES)
    loaded = load([tmp_path])
    snapshot, issues = build_snapshot(loaded)
    assert issues == ()
    assert [resource.label for resource in loaded.resources] == ["Cluster payments", "RouteConfiguration routes"]
    assert snapshot.clusters["payments"].connect_timeout == 1.0
    assert snapshot.routes["routes"].virtual_hosts[0].domains == ("payments",)


def test_a_bootstrap_gives_its_static_resources(tmp_path: Path) -> None:
    write(tmp_path, envoy__yaml=BOOTSTRAP.replace("CLUSTER_NAME", "payments"))
    snapshot, issues = build_snapshot(load([tmp_path / "envoy.yaml"]))
    assert snapshot.clusters["payments"].lb_policy == LeastRequest()
    assert snapshot.listeners["ingress"].port == 8080
    assert [(issue.severity, issue.path, issue.line) for issue in issues] == [("degraded", "dynamic_resources", 3)]


def test_a_static_route_to_an_unknown_cluster_is_an_error_as_in_envoy(tmp_path: Path) -> None:
    write(tmp_path, envoy__yaml=BOOTSTRAP.replace("CLUSTER_NAME", "payment"))
    line = BOOTSTRAP[: BOOTSTRAP.index("CLUSTER_NAME")].count("\n") + 1
    (found,) = (text for text in lines_of(tmp_path) if "error" in text)
    assert found == (
        f"envoy.yaml:{line}: error: Listener ingress: "
        "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster: "
        "no cluster 'payment' is in the files (define the cluster; known: payments)"
    )


def test_a_route_configuration_that_stands_alone_may_name_what_comes_later(tmp_path: Path) -> None:
    write(tmp_path, routes__yaml=ROUTES)
    (line,) = lines_of(tmp_path)
    assert line.startswith(
        "routes.yaml:7: degraded: RouteConfiguration routes: virtual_hosts[0].routes[0].route.cluster"
    )


def test_the_cluster_of_copies_is_looked_for_too(tmp_path: Path) -> None:
    mirrored = "{cluster_header: x-to, request_mirror_policies: [{cluster: copies}]}"
    write(tmp_path, routes__yaml=ROUTES.replace("{cluster: payments}", mirrored))
    (line,) = lines_of(tmp_path)
    assert "route.request_mirror_policies[0].cluster: no cluster 'copies' is in the files" in line


@pytest.mark.parametrize(
    "wrapped",
    [
        '"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster\n' + CLUSTER.format(name="a"),
        "- " + CLUSTER.format(name="a").replace("\n", "\n  "),
        "resources:\n- " + CLUSTER.format(name="a").replace("\n", "\n  "),
        'version_info: "1"\nresources:\n- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  '
        + CLUSTER.format(name="a").replace("\n", "\n  "),
        "static_resources:\n  clusters:\n  - " + CLUSTER.format(name="a").replace("\n", "\n    "),
    ],
)
def test_the_ways_to_write_a_resource(tmp_path: Path, wrapped: str) -> None:
    write(tmp_path, a__yaml=wrapped)
    snapshot, issues = build_snapshot(load([tmp_path]))
    assert issues == ()
    assert list(snapshot.clusters) == ["a"]


def test_json_is_read_strictly_and_located_even_with_tabs(tmp_path: Path) -> None:
    value = {"name": "a", "connect_timeout": "1s", "load_assignment": {"cluster_name": "a"}, "respect_dns": True}
    write(tmp_path, a__json=json.dumps(value, indent="\t"), b__json='{"name": "b",\n"x": }')
    assert sorted(lines_of(tmp_path)) == [
        "a.json:7: error: Cluster a: respect_dns: Cluster has no field 'respect_dns' (did you mean 'respect_dns_ttl'?)",
        "b.json:2: error: file: Expecting value",
    ]


def test_json_s_escapes_of_two_halves_are_one_character(tmp_path: Path) -> None:
    value = {"name": "\U0001f600\\ud83d\\ude00", "connect_timeout": "1s", "load_assignment": {"cluster_name": "a"}}
    write(tmp_path, a__json=json.dumps(value))
    assert "\\ud83d\\ude00" in (tmp_path / "a.json").read_text()
    (cluster,) = load([tmp_path]).resources
    assert cluster.name == value["name"]


def test_duplicates_name_both_places(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=CLUSTER.format(name="a"), b__yaml="# a comment\n" + CLUSTER.format(name="a"))
    (line,) = lines_of(tmp_path)
    assert line.startswith("b.yaml:2: error: Cluster a: defined twice: ")
    assert "a.yaml:1 has it already" in line


def test_endpoints_that_are_missing_are_reported(tmp_path: Path) -> None:
    write(tmp_path, a__yaml="name: a\ntype: EDS\nlb_policy: ROUND_ROBIN\neds_cluster_config: {eds_config: {ads: {}}}\n")
    (line,) = lines_of(tmp_path)
    assert line == (
        "a.yaml:4: degraded: Cluster a: eds_cluster_config: no ClusterLoadAssignment 'a' is in the files "
        "(until it has some its calls fail with UH)"
    )


def test_an_assignment_of_its_own_is_found(tmp_path: Path) -> None:
    cluster = "name: a\ntype: EDS\nlb_policy: ROUND_ROBIN\neds_cluster_config: {eds_config: {ads: {}}}\n"
    endpoint = "{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}"
    write(tmp_path, a__yaml=f"{cluster}---\ncluster_name: a\nendpoints: [{{lb_endpoints: [{endpoint}]}}]\n")
    snapshot, issues = build_snapshot(load([tmp_path]))
    assert issues == ()
    assert snapshot.assignment(snapshot.clusters["a"]) is snapshot.endpoints["a"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("virtual_host: []\nname: a", "did you mean 'virtual_hosts'?"),
        ("just text", "no configuration that is known"),
        ("a: 1\nb: 2", "a mapping of a, b is no configuration that is known"),
        ("virtual_hosts: []", "the RouteConfiguration has no name"),
        (
            '"@type": type.googleapis.com/envoy.config.cluster.v3.Clusterr',
            "did you mean envoy.config.cluster.v3.Cluster?",
        ),
        ("apiVersion: v1\nkind: List\nitems: [1]", "an item of a List needs apiVersion and kind"),
        ("apiVersion: networking.istio.io/v1\nkind: VirtualService\nspec: {}", "no metadata.name"),
        ("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}", "no spec"),
        ("", "no configuration in"),
    ],
)
def test_documents_that_are_nothing_known_are_errors(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, a__yaml=text)
    (line,) = lines_of(tmp_path)
    assert "error" in line
    assert words in line


@pytest.mark.parametrize(
    "text, words",
    [
        ("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {}", "Gateway (networking"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}", "Service (v1) is not used"),
        (
            '"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\nname: a',
            "is not used from files",
        ),
    ],
)
def test_documents_for_others_are_reported_and_do_no_harm(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, a__yaml=CLUSTER.format(name="a"), b__yaml=text)
    (line,) = lines_of(tmp_path)
    assert "degraded" in line
    assert words in line


def test_directories_are_read_recursively_without_what_others_leave_there(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / "sub", a__yml=CLUSTER.format(name="a"))
    for name in (".a.yaml.swp", ".b.yaml", "#c.yaml#", "d.yaml~", "e.yaml.bak", "README.md", ".#f.yaml"):
        (tmp_path / name).write_text("not: [yaml")
    (tmp_path / ".hidden" / "g.yaml").write_text("not: [yaml")
    (tmp_path / "loop").symlink_to(tmp_path)
    snapshot, issues = build_snapshot(load([tmp_path]))
    assert issues == ()
    assert list(snapshot.clusters) == ["a"]


def test_a_config_map_volume_is_read_once(tmp_path: Path) -> None:
    data = tmp_path / "..2026_01"
    data.mkdir()
    write(data, a__yaml=CLUSTER.format(name="a"))
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "a.yaml").symlink_to(Path("..data", "a.yaml"))
    snapshot, issues = build_snapshot(load([tmp_path]))
    assert issues == ()
    assert list(snapshot.clusters) == ["a"]


def test_what_cannot_be_read_is_an_error_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    found = lines_of(tmp_path, tmp_path / "latin.yaml", tmp_path / "missing.yaml")
    assert found[0].startswith("latin.yaml: error: file: not UTF-8: byte 9")
    assert found[1].startswith("missing.yaml: error: file: no such file or directory")


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=CLUSTER.format(name="a"), b__yaml=CLUSTER.format(name="b"))
    loader = Loader([tmp_path])
    first = loader.load()
    (tmp_path / "b.yaml").write_text(CLUSTER.format(name="c"))
    second = loader.load()
    assert second.resources[0] is first.resources[0]
    assert [resource.name for resource in second.resources] == ["a", "c"]
    assert first.version != second.version

    (tmp_path / "b.yaml").write_text(CLUSTER.format(name="b"))
    assert loader.load().version == first.version


@pytest.mark.parametrize("text", ["", "name: [", "- a: b: c"])
def test_a_known_file_that_looks_half_written_is_transient(tmp_path: Path, text: str) -> None:
    write(tmp_path, a__yaml=CLUSTER.format(name="a"))
    loader = Loader([tmp_path])
    assert not loader.load().transient
    (tmp_path / "a.yaml").write_text(text)
    assert loader.load().transient


def test_a_known_file_that_vanishes_is_transient_once(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=CLUSTER.format(name="a"), b__yaml=CLUSTER.format(name="b"))
    loader = Loader([tmp_path])
    loader.load()
    (tmp_path / "b.yaml").unlink()
    assert loader.load().transient
    assert not loader.load().transient
