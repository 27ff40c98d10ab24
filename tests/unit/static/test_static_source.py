import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, LbEndpoint
from meshlib.model.lb import LeastRequest
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.report import Issue, ResourceError
from meshlib.model.route import DirectResponseAction, RetryPolicy, Route, RouteAction, VirtualHost, WeightedClusters
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import StaticSource, parse_address, static_cluster, static_snapshot


def hosts_of(snapshot: Snapshot) -> dict[str, VirtualHost]:
    return {host.domains[0]: host for host in snapshot.routes["static"].virtual_hosts}


def action_of(host: VirtualHost) -> RouteAction:
    action = host.routes[0].action
    assert isinstance(action, RouteAction)
    return action


def test_each_cluster_answers_to_its_name_on_any_port() -> None:
    snapshot = static_snapshot({"payments": ["127.0.0.1:8001", "127.0.0.1:8002"]})

    host = hosts_of(snapshot)["payments"]
    assert action_of(host).cluster == "payments"
    assert action_of(host).timeout == 15.0
    assert host.routes[0].match.path == PathMatcher("prefix", "/")
    assert snapshot.routes["static"].ignore_port_in_host_matching
    cluster = snapshot.clusters["payments"]
    assignment = snapshot.assignment(cluster)
    assert cluster.type == "STATIC"
    assert assignment is not None
    assert [str(e.address) for e in assignment.localities[0].endpoints] == ["127.0.0.1:8001", "127.0.0.1:8002"]


def test_weights_split_a_domain_between_clusters() -> None:
    snapshot = static_snapshot(
        {"stable": ["10.0.0.1:80"], "canary": ["10.0.0.2:80"]}, routes={"payments": {"stable": 90, "canary": 10}}
    )

    split = action_of(hosts_of(snapshot)["payments"]).cluster
    assert isinstance(split, WeightedClusters)
    assert {share.name: share.weight for share in split.clusters} == {"stable": 90, "canary": 10}
    assert set(hosts_of(snapshot)) == {"stable", "canary", "payments"}


def test_a_route_may_redefine_the_domain_of_a_cluster_and_keep_its_own_actions() -> None:
    route = Route(RouteMatch(PathMatcher("path", "/")), DirectResponseAction(204))
    snapshot = static_snapshot({"a": ["10.0.0.1:80"]}, routes={"a": [route]})
    assert hosts_of(snapshot)["a"].routes == (route,)


def test_policies_are_applied_to_every_host() -> None:
    snapshot = static_snapshot(
        {"a": ["10.0.0.1:80"]}, timeout=timedelta(milliseconds=250), retries=2, lb_policy=LeastRequest()
    )

    host = hosts_of(snapshot)["a"]
    assert action_of(host).timeout == 0.25
    assert host.retry_policy is not None
    assert host.retry_policy.num_retries == 2
    assert host.retry_policy.retriable_status_codes == (503,)
    assert snapshot.clusters["a"].lb_policy == LeastRequest()


def test_a_retry_policy_is_taken_as_it_is_and_none_means_no_retries() -> None:
    policy = RetryPolicy(("5xx",), num_retries=7)
    assert hosts_of(static_snapshot({"a": []}, retries=policy))["a"].retry_policy is policy
    assert hosts_of(static_snapshot({"a": []}))["a"].retry_policy is None
    assert hosts_of(static_snapshot({"a": []}, retries=0))["a"].retry_policy is None


@pytest.mark.parametrize("off", [None, 0, 0.0, timedelta()])
def test_a_timeout_can_be_switched_off(off: float | timedelta | None) -> None:
    assert action_of(hosts_of(static_snapshot({"a": []}, timeout=off))["a"]).timeout is None


def test_host_names_make_a_dns_cluster() -> None:
    assert static_cluster("a", ["db.internal:5432", "10.0.0.1:80"]).type == "STRICT_DNS"
    assert static_cluster("a", ["[::1]:80", "unix:/run/app.sock"]).type == "STATIC"


def test_a_model_cluster_is_kept_and_must_carry_its_key_as_name() -> None:
    cluster = Cluster("a", type="EDS")
    assert static_snapshot({"a": cluster}).clusters["a"] is cluster
    with pytest.raises(ResourceError, match="calls itself 'a'"):
        static_snapshot({"b": cluster})


def test_endpoints_may_come_from_the_model() -> None:
    heavy = LbEndpoint(Address("10.0.0.1", 80), weight=3)
    assignment = static_cluster("a", [heavy, Address("10.0.0.2", 80)]).load_assignment
    assert assignment is not None
    assert assignment.localities[0].endpoints == (heavy, LbEndpoint(Address("10.0.0.2", 80)))


@pytest.mark.parametrize(
    "text, address",
    [
        ("10.0.0.1:80", Address("10.0.0.1", 80)),
        ("[2001:db8::1]:8443", Address("2001:db8::1", 8443)),
        ("payments.internal:80", Address("payments.internal", 80)),
        ("unix:/run/app.sock", Address("", 0, "/run/app.sock")),
        ("unix:///run/app.sock", Address("", 0, "/run/app.sock")),
    ],
)
def test_addresses_are_read_and_written_back(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "build, path, words",
    [
        (lambda: static_snapshot({"a": ["http://x:80"]}), "clusters['a'][0]", "is a URL"),
        (lambda: static_snapshot({"a": ["10.0.0.1:80", "10.0.0.1"]}), "clusters['a'][1]", "has no port"),
        (lambda: static_snapshot({"a": ["::1"]}), "clusters['a'][0]", "has no port"),
        (lambda: static_snapshot({"a": ["h:0"]}), "clusters['a'][0]", "1 to 65535"),
        (lambda: static_snapshot({"a": ["h:70000"]}), "clusters['a'][0]", "1 to 65535"),
        (lambda: static_snapshot({"a": "h:80"}), "clusters['a']", "give a list"),
        (lambda: static_snapshot({"": []}), "clusters", "needs a name"),
        (lambda: static_snapshot({"a": []}, routes={"x": "b"}), "routes['x']", "unknown cluster 'b'; known: a"),
        (lambda: static_snapshot({"a": []}, routes={"x": {"b": 1}}), "routes['x']", "unknown cluster"),
        (lambda: static_snapshot({"a": []}, routes={"x": {"a": 0}}), "routes['x']", "add up to 0"),
        (lambda: static_snapshot({"a": []}, routes={"x": {"a": -1}}), "routes['x']['a']", "negative"),
        (lambda: static_snapshot({"a": []}, retries=-1), "retries", "negative"),
        (lambda: static_snapshot({"a": []}, timeout=-1), "timeout", "not a duration"),
        (lambda: static_snapshot({"a": []}, timeout=float("nan")), "timeout", "not a duration"),
    ],
)
def test_mistakes_name_the_argument_and_what_would_be_valid(
    build: Callable[[], Snapshot], path: str, words: str
) -> None:
    with pytest.raises(ResourceError) as caught:
        build()
    assert caught.value.path == path
    assert words in caught.value.reason


class Recorder:
    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.refuse = False

    def publish(self, snapshot: Snapshot) -> None:
        if self.refuse:
            raise ResourceError("x", "refused")
        self.snapshots.append(snapshot)

    def report(self, issues: Sequence[Issue]) -> None:
        raise AssertionError(issues)


def test_the_source_delivers_at_start_and_on_replace_and_not_after_close() -> None:
    first, second, third = (static_snapshot({"a": []}, version=str(n)) for n in range(3))
    source, sink = StaticSource(first), Recorder()
    source.start(sink)
    source.replace(second)
    source.close()
    source.replace(third)
    assert sink.snapshots == [first, second]

    source.start(sink)  # as a forked child does: it begins with what was last said
    assert sink.snapshots[-1] == third


def test_a_refused_replacement_leaves_the_present_snapshot() -> None:
    first, second = static_snapshot({"a": []}), static_snapshot({"b": []})
    source, sink = StaticSource(first), Recorder()
    source.start(sink)
    sink.refuse = True
    with pytest.raises(ResourceError):
        source.replace(second)
    sink.refuse = False
    source.start(sink)
    assert sink.snapshots == [first, first]


def test_static_configuration_needs_no_optional_part() -> None:
    parts = "('google.protobuf', 'yaml', 'grpc')"
    code = f"import sys, meshlib.sources.static; print([m for m in {parts} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
