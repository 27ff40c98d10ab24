"""What of the same objects each caller sees: visibility, source matches, selectors, precedence, scope."""

import pytest

from meshlib.sources.istio.caller import Caller
from parts.istio_objects import HOST, entry, obj, resources, rule, translated


def actions(*objects: str, caller: Caller | None = None) -> list[str]:
    """Where the routes of the service go, in order: timeouts tell them apart."""
    for host in resources(*objects, caller=caller)["RouteConfiguration 9080"]["virtual_hosts"]:
        if host["name"] == f"{HOST}:9080":
            return [route["route"]["timeout"] for route in host["routes"]]
    return []


def lets(seconds: int) -> str:
    return f"trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {seconds}s}}}}}}"


def connect_timeout(*objects: str, caller: Caller | None = None) -> str:
    found: str = resources(entry(), *objects, caller=caller)[f"Cluster outbound|9080||{HOST}"]["connect_timeout"]
    return found


def virtual(*routes: str, name: str = "v", namespace: str = "default", spec: str = "", more: str = "") -> str:
    listed = ", ".join(f"{{{route}, route: [{{destination: {{host: {HOST}}}}}]}}" for route in routes)
    return obj("VirtualService", name, f"{{hosts: [{HOST}], {spec} http: [{listed}]}}", namespace, more)


def test_source_labels_and_namespaces_are_the_caller_s() -> None:
    objects = (
        entry(),
        virtual("match: [{sourceLabels: {app: shop}}], timeout: 1s", "match: [{sourceNamespace: other}], timeout: 2s",
                "match: [{gateways: [mesh], sourceLabels: {app: none}}], timeout: 3s", "timeout: 4s"),
    )  # fmt: skip
    assert actions(*objects) == ["3s"], "where gateways are named, the labels of the source do not count"
    assert actions(*objects, caller=Caller(labels=(("app", "shop"), ("tier", "1")))) == ["1s"]
    assert actions(*objects, caller=Caller("other")) == ["2s"]
    told = {(issue.path, issue.reason.partition(":")[0]) for issue in translated(*objects).issues}
    assert told == {
        ("http[0].match[0]", "the caller does not have these labels (sourceLabels)"),
        ("http[1].match[0]", "the caller stands in the namespace 'default'"),
    }


def test_objects_are_seen_where_they_are_exported_to() -> None:
    objects = (entry(), virtual("timeout: 1s", spec="exportTo: [other],"), rule(lets(2) + ", exportTo: [.]"))
    assert actions(*objects) == ["0s"]
    assert actions(*objects, caller=Caller("other")) == ["1s"]
    assert connect_timeout(*objects[1:]) == "2s"
    assert connect_timeout(*objects[1:], caller=Caller("other")) == "10s"
    hidden = entry("endpoints: [{address: 10.0.0.1}], exportTo: ['~']")
    assert [issue.path for issue in translated(hidden).issues] == ["exportTo"]
    assert resources(hidden) == {}


def test_one_s_own_virtual_service_goes_before_an_older_one_of_the_mesh() -> None:
    everybody = virtual("timeout: 1s", name="a", more=", creationTimestamp: '2024-01-01T00:00:00Z'")
    own = virtual("timeout: 2s", name="b", spec="exportTo: [.],")
    assert actions(entry(), everybody, own) == ["2s"]
    assert actions(entry(), everybody, own, caller=Caller("other")) == ["1s"]


def test_of_equals_the_oldest_wins_and_what_has_no_age_is_the_youngest() -> None:
    old = virtual("timeout: 1s", name="old", more=", creationTimestamp: '2023-01-01T00:00:00Z'")
    new = virtual("timeout: 2s", name="new", more=", creationTimestamp: '2024-01-01T00:00:00Z'")
    none = virtual("timeout: 3s", name="none")
    assert actions(entry(), none, new, old) == ["1s"]
    assert actions(entry(), none, new) == ["2s"]
    assert actions(entry(), none) == ["3s"]


def test_a_rule_for_selected_workloads_goes_before_the_rule_for_all() -> None:
    objects = (rule(lets(1)), rule(lets(2) + ", workloadSelector: {matchLabels: {app: shop}}", "selective"))
    assert connect_timeout(*objects) == "1s"
    assert connect_timeout(*objects, caller=Caller(labels=(("app", "shop"),))) == "2s"
    assert connect_timeout(*objects, caller=Caller("other", (("app", "shop"),))) == "1s", "of its namespace only"


@pytest.mark.parametrize(
    "caller, expected",
    [(Caller(), "1s"), (Caller("other"), "2s"), (Caller("third"), "1s"), (Caller("istio-system"), "1s")],
)
def test_the_caller_s_namespace_goes_before_the_service_s_and_that_before_the_root_s(
    caller: Caller, expected: str
) -> None:
    objects = (rule(lets(1)), rule(lets(2), namespace="other"), rule(lets(3), namespace="istio-system"))
    assert connect_timeout(*objects, caller=caller) == expected


def test_the_root_namespace_speaks_for_what_nobody_else_does() -> None:
    everything = rule(lets(3), namespace="istio-system", host="*.svc.cluster.local")
    assert connect_timeout(everything) == "3s"
    assert connect_timeout(everything, rule(lets(1), host="*.local")) == "1s", "another place, however vague"
    private = rule(lets(4) + ", exportTo: [.]", namespace="istio-system")
    assert connect_timeout(private) == "10s"
    assert connect_timeout(private, caller=Caller("istio-system")) == "4s"


def test_rules_for_different_callers_are_not_put_together() -> None:
    objects = (rule(lets(1) + ", exportTo: [other]", "a"), rule(lets(2), "b"))
    assert connect_timeout(*objects) == "2s"


def delegate(spec: str, namespace: str = "teams") -> str:
    return obj("VirtualService", "reviews-routes", f"{{{spec} http: [{{match: [{{uri: {{prefix: /a/1}}}}], "
               f"timeout: 1s, route: [{{destination: {{host: {HOST}}}}}]}}]}}", namespace)  # fmt: skip


def root(namespace: str = "teams") -> str:
    http = (
        f"[{{match: [{{uri: {{prefix: /a}}}}], delegate: {{name: reviews-routes, namespace: {namespace}}}}}, "
        f"{{timeout: 2s, route: [{{destination: {{host: {HOST}}}}}]}}]"
    )
    return obj("VirtualService", "root", f"{{hosts: [{HOST}], http: {http}}}")


def test_a_delegate_of_another_namespace_is_taken_if_it_is_exported_to_the_root_s() -> None:
    assert actions(entry(), root(), delegate("")) == ["1s", "2s"]
    assert actions(entry(), root(), delegate("exportTo: [default],")) == ["1s", "2s"]
    assert actions(entry(), root(), delegate("exportTo: [.],")) == ["2s"]
    told = translated(entry(), root("nobody"), delegate("")).issues
    assert [(issue.resource, issue.path) for issue in told] == [
        ("VirtualService default/root", "http[0].delegate"),
        ("VirtualService teams/reviews-routes", "hosts"),
    ]


def test_a_delegate_s_short_names_are_of_its_own_namespace() -> None:
    named = obj("VirtualService", "reviews-routes", "{http: [{route: [{destination: {host: ratings}}]}]}", "teams")
    hosts = resources(entry(), root(), named)["RouteConfiguration 9080"]["virtual_hosts"]
    assert hosts[0]["routes"][0]["route"]["cluster"] == "outbound|9080||ratings.teams.svc.cluster.local"


@pytest.mark.parametrize(
    "spec, path",
    [
        (f"{{http: [{{delegate: {{name: x}}, route: [{{destination: {{host: {HOST}}}}}]}}]}}", "http[0].delegate"),
        ("{hosts: [a], http: [{delegate: {name: x}, redirect: {uri: /}}]}", "http[0].redirect"),
        ("{hosts: [a], http: [{delegate: {namespace: x}}]}", "http[0].delegate"),
    ],
)
def test_delegation_that_cannot_be_is_an_error(spec: str, path: str) -> None:
    errors = [
        issue for issue in translated(entry(), obj("VirtualService", "v", spec)).issues if issue.severity == "error"
    ]
    assert path in {issue.path for issue in errors}


# Workloads ------------------------------------------------------------------------------------------------------------


def workload(name: str, spec: str, labels: str = "{app: reviews}", namespace: str = "default") -> str:
    return obj("WorkloadEntry", name, spec, namespace, f", labels: {labels}")


def addresses(*objects: str, caller: Caller | None = None) -> list[str]:
    found = resources(*objects, caller=caller)[f"ClusterLoadAssignment outbound|9080||{HOST}"].get("endpoints", [])
    return [
        endpoint["endpoint"]["address"]["socket_address"]["address"]
        for locality in found
        for endpoint in locality["lb_endpoints"]
    ]


def test_a_selector_finds_workloads_of_its_namespace_by_all_their_labels() -> None:
    selecting = entry("workloadSelector: {labels: {app: reviews, version: v1}}")
    objects = (
        workload("b", "{address: 10.1.0.2, labels: {version: v1}}"),
        workload("a", "{address: 10.1.0.1, labels: {version: v1, app: other}}"),
        workload("c", "{address: 10.1.0.3, labels: {version: v2}}"),
        workload("d", "{address: 10.1.0.4, labels: {version: v1}}", namespace="other"),
        workload("e", "{address: named.test, labels: {version: v1}}"),
    )
    assert addresses(selecting, *objects) == ["10.1.0.1", "10.1.0.2"]


def test_entries_of_one_host_are_one_service_within_a_namespace() -> None:
    more = entry("endpoints: [{address: 10.0.0.2}]", name="more")
    other = entry("endpoints: [{address: 10.0.0.3}]", namespace="other")
    assert addresses(entry(), more, other) == ["10.0.0.1", "10.0.0.2"]
    assert addresses(entry(), more, other, caller=Caller("other")) == ["10.0.0.3"]


def test_a_workload_of_another_network_without_an_address_is_told() -> None:
    (issue,) = translated(entry("endpoints: [{network: far}]")).issues
    assert (issue.severity, issue.path) == ("degraded", "endpoints[0].network")


@pytest.mark.parametrize(
    "policy, spec, expected",
    [
        ("", "{address: 10.0.0.1, serviceAccount: reader}", ["spiffe://cluster.local/ns/default/sa/reader"]),
        ("", "{address: 10.0.0.1, labels: {security.istio.io/tlsMode: istio}}", []),
        ("tls: {mode: DISABLE}", "{address: 10.0.0.1, serviceAccount: reader}", None),
        ("", "{address: 10.0.0.1}", None),
    ],
)
def test_workloads_with_an_account_are_spoken_to_in_mutual_tls(
    policy: str, spec: str, expected: list[str] | None
) -> None:
    rules = (rule(f"trafficPolicy: {{{policy}}}"),) if policy else ()
    found = resources(entry(f"endpoints: [{spec}]"), *rules)
    matches = found[f"Cluster outbound|9080||{HOST}"].get("transport_socket_matches")
    if expected is None:
        assert matches is None
        return
    (context,) = (match["transport_socket"]["typed_config"] for match in matches if match["match"])
    assert context["sni"] == f"outbound_.9080_._.{HOST}"
    names = context["common_tls_context"]["validation_context"].get("match_subject_alt_names", [])
    assert [name["exact"] for name in names] == expected
    (locality,) = found[f"ClusterLoadAssignment outbound|9080||{HOST}"]["endpoints"]
    assert locality["lb_endpoints"][0]["metadata"]["filter_metadata"] == {
        "envoy.transport_socket_match": {"tlsMode": "istio"}
    }


# Sidecar --------------------------------------------------------------------------------------------------------------


def sidecar(spec: str, namespace: str = "default", name: str = "scope") -> str:
    return obj("Sidecar", name, spec, namespace)


OTHER = obj("ServiceEntry", "other", "{hosts: [other.test], ports: [{number: 9080, name: http, protocol: HTTP}], "
            "resolution: NONE}", "other")  # fmt: skip


@pytest.mark.parametrize(
    "hosts, expected",
    [
        ("['*/*']", {HOST, "other.test"}),
        ("['./*']", {HOST}),
        ("['other/*']", {"other.test"}),
        ("['other/other.test']", {"other.test"}),
        ("['other/*.test']", {"other.test"}),
        (f"['*/{HOST}']", {HOST}),
        ("['*/*', '~other/*']", {HOST}),
        ("['third/*']", set()),
    ],
)
def test_a_sidecar_says_what_is_imported(hosts: str, expected: set[str]) -> None:
    found = resources(entry(), OTHER, sidecar(f"{{egress: [{{hosts: {hosts}}}]}}"))
    assert {name.rpartition("|")[2] for name in found if name.startswith("Cluster outbound|")} == expected


def test_the_sidecar_in_charge_selects_the_caller_or_is_its_namespace_s_or_the_root_s() -> None:
    def scope(host: str, selector: str = "") -> str:
        return f"{{egress: [{{hosts: ['{host}']}}]{selector}}}"

    objects = (
        sidecar(scope("*/*"), name="all"),
        sidecar(scope("other/*", ", workloadSelector: {labels: {app: shop}}"), name="selective"),
        sidecar(scope("third/*"), "istio-system"),
    )
    shop = Caller(labels=(("app", "shop"),))

    def clusters(caller: Caller) -> set[str]:
        found = resources(entry(), OTHER, *objects, caller=caller)
        return {name.rpartition("|")[2] for name in found if name.startswith("Cluster outbound|")}

    assert clusters(Caller()) == {HOST, "other.test"}
    assert clusters(shop) == {"other.test"}
    assert clusters(Caller("elsewhere")) == set()


def test_routes_lead_to_services_that_are_not_imported() -> None:
    leading = obj("VirtualService", "v", "{hosts: [front.test], http: [{route: [{destination: {host: other.test, "
                  "port: {number: 9080}}}]}]}")  # fmt: skip
    found = resources(entry(), OTHER, leading, sidecar("{egress: [{hosts: ['./*']}]}"))
    assert "Cluster outbound|9080||other.test" in found
    hosts = {host["name"] for host in found["RouteConfiguration 9080"]["virtual_hosts"]}
    assert hosts == {f"{HOST}:9080", "allow_any"}


@pytest.mark.parametrize(
    ("matches", "brought_in"),
    [("", True), ("{port: 9080}", True), ("{sourceNamespace: default}", True), ("{sourceNamespace: other}", False),
     ("{sourceNamespace: other}, {sourceNamespace: default}", True), ("{sourceNamespace: other}, {port: 9080}", False)],
)  # fmt: skip
def test_a_match_for_another_namespace_keeps_a_route_from_bringing_its_services_in(
    matches: str, brought_in: bool
) -> None:
    leading = obj("VirtualService", "v", f"{{hosts: [front.test], http: [{{match: [{matches}], route: [{{destination: "
                  "{host: other.test, port: {number: 9080}}}]}]}")  # fmt: skip
    found = resources(entry(), OTHER, leading, sidecar("{egress: [{hosts: ['./*']}]}"))
    assert ("Cluster outbound|9080||other.test" in found) is brought_in


def test_registry_only_refuses_what_nobody_speaks_for() -> None:
    found = resources(entry(), sidecar("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"))
    (last,) = found["RouteConfiguration 9080"]["virtual_hosts"][1:]
    assert (last["domains"], last["routes"][0]["direct_response"]) == (["*"], {"status": 502})
    assert found["Cluster BlackHoleCluster"]["name"] == "BlackHoleCluster"
    assert found["Listener virtualOutbound"]["use_original_dst"]
