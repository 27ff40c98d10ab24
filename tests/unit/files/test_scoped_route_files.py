"""Scopes in files: what SRDS would bring. Virtual hosts on demand are nothing that files can have."""

from pathlib import Path

from meshlib.explain import Explainer

TEXT = """
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: shop
  api_listener:
    api_listener:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: shop
      scoped_routes:
        name: tenants
        scope_key_builder: {fragments: [{header_value_extractor: {name: x-tenant, index: 0}}]}
        rds_config_source: {ads: {}}
        scoped_rds: {scoped_rds_config_source: {ads: {}}}
      http_filters:
      - name: router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
- "@type": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration
  name: acme
  key: {fragments: [{string_key: acme}]}
  route_configuration_name: routes
- "@type": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration
  name: other
  key: {fragments: [{string_key: other}]}
  route_configuration_name: missing
- name: routes
  virtual_hosts: [{name: all, domains: [shop], routes: [{match: {prefix: /a}, direct_response: {status: 204}}]}]
  vhds: {config_source: {ads: {}}}
"""


def test_scopes_stand_in_files_too(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(TEXT)
    explainer = Explainer.from_files(tmp_path)
    assert [(issue.path, issue.severity) for issue in explainer.issues] == [
        ("vhds", "degraded"),
        ("route_configuration_name", "degraded"),
    ]
    found = explainer.explain("GET", "http://shop/a", {"x-tenant": "acme"})
    assert found.direct_response == {"status": 204, "body": ""}
    assert (found.route_configuration, found.virtual_host, found.route_index) == ("routes", "all", 0)
    assert [trial["matched"] for trial in found.trials] == [True]
    for tenant in ("other", "nobody"):
        found = explainer.explain("GET", "http://shop/a", {"x-tenant": tenant})
        assert (found.response_flag, found.failure_status) == ("NR", 404)
        assert found.reason == f"no scope of 'tenants' with the request's key {tenant!r} speaks for 'shop'"
    assert "has no key" in str(explainer.explain("GET", "http://shop/a").reason)
    assert "no route of virtual host 'all'" in str(
        explainer.explain("GET", "http://shop/b", {"x-tenant": "acme"}).reason
    )
    assert [config.name for config in explainer.route_configurations()] == ["routes"]
