"""What the routes of a virtual host's matcher name is looked for, and missed where it stands."""

from pathlib import Path

from meshlib.sources.files.loader import load
from meshlib.sources.files.snapshot import build_snapshot

ROUTE = """
            action:
              name: route
              typed_config:
                "@type": type.googleapis.com/envoy.config.route.v3.Route
                match: {prefix: /}
                route: {cluster: %s}
"""
TREE = f"""
name: r
virtual_hosts:
- name: v
  domains: ["*"]
  matcher:
    matcher_tree:
      input:
        name: h
        typed_config:
          "@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput
          header_name: x
      exact_match_map:
        map:
          one: {ROUTE % "there"}
          two: {ROUTE % "missing"}
    on_no_match:
      matcher:
        on_no_match:
          action:
            name: routes
            typed_config:
              "@type": type.googleapis.com/envoy.config.route.v3.RouteList
              routes:
              - {{match: {{prefix: /}}, route: {{cluster: there}}}}
              - {{match: {{prefix: /}}, route: {{cluster: lost}}}}
---
name: there
type: STATIC
load_assignment:
  cluster_name: there
  endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}}}}}]}}]
"""


def test_clusters_that_a_matchers_routes_name(tmp_path: Path) -> None:
    file = tmp_path / "tree.yaml"
    file.write_text(TREE)
    _, issues = build_snapshot(load([file]))
    found = {issue.path.partition("matcher.")[2]: issue for issue in issues if "no cluster" in issue.reason}
    assert len(found) == 2, issues
    lines = file.read_text().splitlines()
    assert {lines[issue.line - 1].strip() for issue in found.values()} == {
        "route: {cluster: missing}",
        "- {match: {prefix: /}, route: {cluster: lost}}",
    }
