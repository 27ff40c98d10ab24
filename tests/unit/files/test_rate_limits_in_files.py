"""Rate limits of a file: Envoy's filter with fields that are newer than xds-protos, and ours at every level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshlib import Mesh
from meshlib.engine.commands import Reply, Start
from parts.flow import Player, get

FILE = """
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_filters:
          - name: ours
            typed_config:
              "@type": type.googleapis.com/xds.type.v3.TypedStruct
              type_url: type.googleapis.com/meshlib.rate_limit
              value: {name: all, concurrency: {max_in_flight: 2}}
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: limit
              token_bucket: {max_tokens: 9, fill_interval: 60s}
              filter_enabled: {default_value: {numerator: 100}}
              filter_enforced: {default_value: {numerator: 0}, runtime_key: enforce}
              enable_retry_after_header: true
              descriptors:
              - entries: [{key: user, value: ann}]
                token_bucket: {max_tokens: 1, fill_interval: 60s}
                shadow_mode: true
              - entries: [{key: generic_key, value: own}]
                token_bucket: {max_tokens: 1, fill_interval: 60s}
              rate_limits:
              - actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
              - actions:
                - generic_key: {descriptor_value: own, default_value: unused}
                - remote_address_match:
                    descriptor_value: never
                    address_matcher: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
              - actions: [{generic_key: {descriptor_value: own}}]
                x_ratelimit_option: "OFF"
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /own}
                route: {cluster: up}
                typed_per_filter_config:
                  ours:
                    "@type": type.googleapis.com/xds.type.v3.TypedStruct
                    type_url: type.googleapis.com/meshlib.rate_limit
                    value: {name: own, bucket: {rate: 0.1, burst: 1}, status: 503}
              - match: {prefix: /}
                route: {cluster: up}
  clusters:
  - name: up
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]
layered_runtime: {layers: [{name: static, static_layer: {enforce: 100}}]}
"""


def mesh_of(folder: Path) -> Mesh:
    path = folder / "bootstrap.yaml"
    path.write_text(FILE)
    mesh = Mesh.from_file(path, unknown_hosts="reject")
    mesh.start().wait_ready()
    return mesh


def call(mesh: Mesh, path: str) -> Any:
    return Player(mesh.runtime, get("shop", path)).last


def test_every_limit_of_a_file_holds(tmp_path: Path) -> None:
    mesh = mesh_of(tmp_path)
    assert [issue.message for issue in mesh.issues if "rate" in issue.path or "http_filters" in issue.path] == []
    own = Player(mesh.runtime, get("shop", "/own"))
    assert isinstance(own.last, Start)
    assert call(mesh, "/own").status == 503
    limited = call(mesh, "/")
    assert isinstance(limited, Reply)
    assert (limited.status, dict(limited.headers)[b"retry-after"]) == (429, b"60")
    own.close()
    mesh.close()
