"""Warming, told as stories: what arrives, what is subscribed to, what the snapshot holds. Time is a number."""

from dataclasses import replace
from typing import Any

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.scoped_routes import HeaderFragment, ScopedRouteConfiguration, ScopedRoutes
from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.decode.references import Resource, references
from meshlib.sources.xds.dependencies import Dependencies
from meshlib.sources.xds.listener_names import ListenerNames
from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    VIRTUAL_HOST,
)
from parts.xds_models import assignment, cluster, listener, routes


class Story:
    """Dependencies with the type of a resource told from its class, and the last snapshot kept."""

    def __init__(self, *, wildcard: bool = False) -> None:
        self.dependencies = Dependencies(wildcard=wildcard, grace=2.0)
        self.last: Snapshot | None = None
        self.published = 0

    def comes(self, *resources: Resource, now: float = 0.0) -> "Story":
        for resource in resources:
            self.dependencies.update(*key(resource), resource, references(resource))
        return self.settle(now)

    def goes(self, type_url: str, name: str, now: float = 0.0) -> "Story":
        self.dependencies.remove(type_url, name)
        return self.settle(now)

    def settle(self, now: float = 0.0) -> "Story":
        found = self.dependencies.settle(now)
        if found is not None:
            self.last, self.published = found, self.published + 1
        return self

    @property
    def snapshot(self) -> Snapshot:
        assert self.last is not None
        return self.last

    def wanted(self, type_url: str) -> set[str]:
        return set(self.dependencies.subscriptions()[type_url])


def key(resource: Any) -> tuple[str, str]:
    kinds = {
        "Listener": LISTENER,
        "RouteConfiguration": ROUTE_CONFIGURATION,
        "Cluster": CLUSTER,
        "ClusterLoadAssignment": CLUSTER_LOAD_ASSIGNMENT,
        "ScopedRouteConfiguration": SCOPED_ROUTE_CONFIGURATION,
        "VirtualHost": VIRTUAL_HOST,
    }
    name = resource.cluster_name if type(resource).__name__ == "ClusterLoadAssignment" else resource.name
    return kinds[type(resource).__name__], name


def by_name() -> Story:
    story = Story()
    story.dependencies.want("l")
    return story.settle()


def running() -> Story:
    return by_name().comes(listener("l", "r"), routes("r", "a"), cluster("a"), assignment("a"))


def test_subscriptions_follow_what_arrives() -> None:
    story = by_name()
    assert story.wanted(LISTENER) == {"l"}
    assert story.comes(listener("l", "r")).wanted(ROUTE_CONFIGURATION) == {"r"}
    assert story.comes(routes("r", "a", "b")).wanted(CLUSTER) == {"a", "b"}
    assert story.comes(cluster("a", "service-a")).wanted(CLUSTER_LOAD_ASSIGNMENT) == {"service-a"}
    assert story.last is None


def test_the_clusters_of_copies_are_subscribed_to_at_every_level() -> None:
    table = routes("r", "a")
    (host,) = table.virtual_hosts
    (route, *_) = host.routes
    assert isinstance(route.action, RouteAction)
    action = replace(route.action, request_mirror_policies=(RequestMirrorPolicy("route"), RequestMirrorPolicy()))
    host = replace(
        host,
        routes=(replace(route, action=action),),
        request_mirror_policies=(RequestMirrorPolicy("host"),),
    )
    table = replace(table, virtual_hosts=(host,), request_mirror_policies=(RequestMirrorPolicy("table"),))
    story = by_name().comes(listener("l", "r"), table)
    assert story.wanted(CLUSTER) == {"a", "route", "host", "table"}


def test_nothing_is_published_before_all_of_a_listener_is_there() -> None:
    story = by_name().comes(assignment("a"), cluster("a"), routes("r", "a"))
    assert story.last is None


def test_a_complete_listener_is_published_with_all_it_leads_to() -> None:
    snapshot = running().snapshot
    assert snapshot.listeners == {"l": listener("l", "r")}
    assert snapshot.routes == {"r": routes("r", "a")}
    assert snapshot.clusters == {"a": cluster("a")}
    assert snapshot.endpoints == {"a": assignment("a")}
    assert snapshot.on_demand


def test_a_new_route_waits_for_its_cluster_and_for_the_endpoints() -> None:
    story = running().comes(routes("r", "b"))
    assert story.wanted(CLUSTER) == {"a", "b"}
    assert story.snapshot.routes == {"r": routes("r", "a")}
    story.comes(cluster("b"))
    assert story.snapshot.routes == {"r": routes("r", "a")}
    story.comes(assignment("b"))
    assert story.snapshot.routes == {"r": routes("r", "b")}
    assert set(story.snapshot.clusters) == {"b"}
    assert story.wanted(CLUSTER) == {"b"}
    assert story.wanted(CLUSTER_LOAD_ASSIGNMENT) == {"b"}


def test_endpoints_of_the_old_route_still_change_while_the_new_one_waits() -> None:
    story = running().comes(routes("r", "b")).comes(assignment("a", 81))
    assert story.snapshot.endpoints == {"a": assignment("a", 81)}


def test_a_cluster_known_to_be_absent_is_not_waited_for() -> None:
    story = running().comes(routes("r", "a", "b")).goes(CLUSTER, "b")
    assert story.snapshot.routes == {"r": routes("r", "a", "b")}
    assert set(story.snapshot.clusters) == {"a"}


def test_a_cluster_without_endpoints_after_the_timer_is_there_and_empty() -> None:
    story = by_name().comes(listener("l", "r"), routes("r", "a"), cluster("a")).goes(CLUSTER_LOAD_ASSIGNMENT, "a")
    assert set(story.snapshot.clusters) == {"a"}
    assert story.snapshot.endpoints == {}


def test_a_cluster_that_changes_its_endpoints_name_keeps_the_old_ones_meanwhile() -> None:
    story = running().comes(cluster("a", "other"))
    assert story.snapshot.clusters == {"a": cluster("a")}
    assert story.wanted(CLUSTER_LOAD_ASSIGNMENT) == {"a", "other"}
    story.comes(assignment("other"))
    assert story.snapshot.clusters == {"a": cluster("a", "other")}
    assert set(story.snapshot.endpoints) == {"other"}


def test_what_is_removed_too_early_stays_until_nothing_points_at_it() -> None:
    story = running().goes(CLUSTER, "a").goes(CLUSTER_LOAD_ASSIGNMENT, "a")
    assert story.snapshot.clusters == {"a": cluster("a")}
    story.comes(routes("r", "b"), cluster("b"), assignment("b"))
    assert set(story.snapshot.clusters) == {"b"}


def test_a_removed_listener_goes_at_once_and_is_absent() -> None:
    story = running().goes(LISTENER, "l")
    assert story.snapshot.listeners == story.snapshot.routes == story.snapshot.clusters == {}
    assert story.snapshot.absent == {"l"}
    story.comes(listener("l", "r"), routes("r", "a"), cluster("a"), assignment("a"))
    assert story.snapshot.absent == frozenset()
    assert set(story.snapshot.listeners) == {"l"}


def test_one_listener_does_not_wait_for_another() -> None:
    story = running()
    story.dependencies.want("slow")
    story.comes(listener("slow", "slow-routes"))
    assert set(story.snapshot.listeners) == {"l"}
    assert set(story.snapshot.routes) == {"r"}


def test_routes_of_a_listener_that_is_not_ready_are_not_a_table_of_their_own() -> None:
    story = running()
    story.dependencies.want("m")
    story.comes(listener("m", "two"), listener("l", "r", "changed"))
    story.comes(routes("two", "a"))
    assert set(story.snapshot.listeners) == {"l", "m"}
    story.dependencies.want("n")
    story.comes(Listener_with_two("n", "two", "three"))
    assert set(story.snapshot.listeners) == {"l", "m"}


def Listener_with_two(name: str, first: str, second: str) -> Any:  # noqa: N802 - reads as the resource it makes
    one, two = listener(name, first), listener(name, second)
    return type(one)(name, one.managers + two.managers, api=True)


def test_aggregate_clusters_are_followed_even_in_a_circle() -> None:
    story = by_name().comes(
        listener("l", "r"), routes("r", "all"), Cluster("all", "AGGREGATE", clusters=("a", "again"))
    )
    story.comes(Cluster("again", "AGGREGATE", clusters=("all", "b")), cluster("a"), assignment("a"))
    assert story.last is None
    assert story.wanted(CLUSTER) == {"all", "again", "a", "b"}
    story.comes(cluster("b"), assignment("b"))
    assert set(story.snapshot.clusters) == {"all", "again", "a", "b"}


def test_nothing_new_is_not_published_again() -> None:
    story = running()
    before = story.published
    story.settle(100.0).settle(200.0)
    assert story.published == before
    assert story.snapshot.version == str(before)


# The wildcard mode


def sidecar(*resources: Resource) -> Story:
    story = Story(wildcard=True)
    story.comes(*resources)
    story.dependencies.answered(CLUSTER)
    story.dependencies.answered(LISTENER)
    return story.settle()


def test_everything_is_asked_for_by_wildcard() -> None:
    story = Story(wildcard=True).settle()
    assert story.wanted(LISTENER) == story.wanted(CLUSTER) == {"*"}
    assert story.comes(cluster("a", "s")).wanted(CLUSTER_LOAD_ASSIGNMENT) == {"s"}


def test_the_first_snapshot_waits_for_both_wildcards_and_every_listener() -> None:
    story = Story(wildcard=True).comes(listener("l", "r"), routes("r", "a"), cluster("a"), assignment("a"))
    assert story.last is None
    story.dependencies.answered(CLUSTER)
    assert story.settle().last is None
    story.dependencies.answered(LISTENER)
    assert set(story.settle().snapshot.listeners) == {"l"}
    assert not story.snapshot.on_demand


def test_silence_is_an_answer_too() -> None:
    story = Story(wildcard=True)
    assert story.goes(LISTENER, "*").goes(CLUSTER, "*").snapshot.listeners == {}


def test_clusters_without_routes_are_there() -> None:
    story = sidecar(cluster("a"), assignment("a"))
    assert set(story.snapshot.clusters) == set(story.snapshot.endpoints) == {"a"}


def test_a_route_to_a_cluster_nobody_sent_waits_for_the_grace_only() -> None:
    story = sidecar(listener("l", "r"), routes("r", "a"), cluster("a"), assignment("a"))
    story.comes(routes("r", "late"), now=10.0)
    assert story.dependencies.deadline == 12.0
    assert story.settle(11.9).snapshot.routes == {"r": routes("r", "a")}
    assert story.settle(12.0).snapshot.routes == {"r": routes("r", "late")}
    assert story.dependencies.deadline is None
    story.comes(cluster("late"), assignment("late"), now=13.0)
    assert set(story.snapshot.clusters) == {"a", "late"}


def test_before_anything_is_in_force_the_wait_is_short() -> None:
    story = sidecar(listener("l", "r"), cluster("a"), assignment("a"), routes("r", "missing"))
    assert story.last is None
    assert story.dependencies.deadline == 0.1
    assert story.settle(0.1).snapshot.routes == {"r": routes("r", "missing")}


def test_a_cluster_that_comes_in_time_stops_the_clock() -> None:
    story = sidecar(listener("l", "r"), routes("r", "a"), cluster("a"), assignment("a"))
    story.comes(routes("r", "late"), now=10.0).comes(assignment("late"), cluster("late"), now=10.5)
    assert story.snapshot.routes == {"r": routes("r", "late")}
    assert story.dependencies.deadline is None


def test_a_removed_cluster_without_routes_goes_with_its_endpoints() -> None:
    story = sidecar(cluster("a"), assignment("a"), cluster("b"), assignment("b")).goes(CLUSTER, "a")
    assert set(story.snapshot.clusters) == set(story.snapshot.endpoints) == {"b"}
    assert story.wanted(CLUSTER_LOAD_ASSIGNMENT) == {"b"}


# Names of listeners


def test_the_template_is_undone_for_calls() -> None:
    names = ListenerNames("xdstp://auth/envoy.config.listener.v3.Listener/%s")
    name = names.add("payments:8080")
    assert name == "xdstp://auth/envoy.config.listener.v3.Listener/payments%3A8080"
    gone = names.add("gone:1")
    found = names.by_authority(Snapshot(listeners={name: listener(name, "r")}, absent=frozenset({gone})))
    assert found.listeners == {"payments:8080": listener("payments:8080", "r")}
    assert found.absent == {"gone:1"}


def test_a_plain_template_changes_nothing() -> None:
    names = ListenerNames()
    snapshot = Snapshot(listeners={"a": listener("a", "r")})
    assert names.add("a") == "a"
    assert names.by_authority(snapshot) is snapshot


def test_only_the_absences_asked_for_last_are_kept() -> None:
    story = Story()
    for name in ("a", "b", "there", "c"):
        story.dependencies.want(name)
    story.comes(listener("there", "c1"), cluster("c1"), assignment("c1"))
    for name in ("c", "b", "a"):
        story.goes(LISTENER, name)
    assert story.dependencies.forget_absent(3) == ()
    assert story.dependencies.forget_absent(1) == ("a", "b")
    story.settle()
    assert (story.snapshot.absent, story.wanted(LISTENER)) == ({"c"}, {"there", "c"})
    story.dependencies.want("a")
    assert "a" in story.settle().wanted(LISTENER)


@pytest.mark.parametrize(
    "authority, asked",
    [("payments", ("payments:80", "payments:443")), ("payments:80", ("payments:80",)), ("[::1]:9", ("[::1]:9",)),
     ("[::1]", ("[::1]:80", "[::1]:443"))],
)  # fmt: skip
def test_a_control_plane_whose_listeners_have_ports_is_asked_with_one(authority: str, asked: tuple[str, ...]) -> None:
    assert ListenerNames(with_port=True).spelled(authority) == asked
    assert ListenerNames().spelled(authority) == (authority,)


# ------------------------------------------------------------------------------------------------- collections


def scope(name: str, routes_name: str) -> ScopedRouteConfiguration:
    return ScopedRouteConfiguration(name, (name,), routes_name)


def scoped_story() -> Story:
    by = ScopedRoutes("s", (HeaderFragment("x", index=0),))
    story = Story()
    story.dependencies.want("l")
    return story.comes(Listener("l", (HttpConnectionManager(by),), api=True))


def test_scopes_are_asked_for_as_a_whole_and_waited_for() -> None:
    story = scoped_story()
    assert (story.last, story.wanted(SCOPED_ROUTE_CONFIGURATION)) == (None, {"*"})
    found = scope("a", "r")
    story.dependencies.update(*key(found), found, references(found))
    story.dependencies.answered(SCOPED_ROUTE_CONFIGURATION)  # the end of the response: these are all there are
    assert story.settle().wanted(ROUTE_CONFIGURATION) == {"r"}
    story.comes(routes("r", "c")).comes(cluster("c"), assignment("c"))
    assert set(story.snapshot.scopes) == {"a"}
    assert set(story.snapshot.routes) == {"r"}
    story.comes(scope("b", "other"))
    assert set(story.snapshot.scopes) == {"a"}  # until its routes are there
    story.comes(routes("other", "c"))
    assert set(story.snapshot.scopes) == {"a", "b"}
    story.goes(SCOPED_ROUTE_CONFIGURATION, "a")
    assert (set(story.snapshot.scopes), set(story.snapshot.routes)) == ({"b"}, {"other"})
    assert story.wanted(ROUTE_CONFIGURATION) == {"other"}


def test_no_scopes_are_an_answer_too() -> None:
    story = scoped_story().goes(SCOPED_ROUTE_CONFIGURATION, "*")
    assert set(story.snapshot.listeners) == {"l"}
    assert story.snapshot.scopes == {}


def on_demand(name: str, *domains: str, to: str = "c") -> VirtualHost:
    return VirtualHost(name, domains, (Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction(to)),))


def vhds_story() -> Story:
    config = RouteConfiguration("r", (on_demand("own", "own.test"),), vhds=True)
    story = Story()
    story.dependencies.want("l")
    return story.comes(listener("l", "r"), config, cluster("c"), assignment("c"))


def names(story: Story) -> list[str]:
    return [host.name for host in story.snapshot.routes["r"].virtual_hosts]


def test_virtual_hosts_come_when_they_are_asked_for_or_of_themselves() -> None:
    story = vhds_story()
    assert (names(story), story.wanted(VIRTUAL_HOST)) == (["own"], {"*"})  # nothing waits for them
    story.dependencies.want_host("r/a.test")
    story.dependencies.want_host("other/a.test")  # of routes that nothing leads to
    assert story.settle().wanted(VIRTUAL_HOST) == {"*", "r/a.test"}
    story.comes(on_demand("r/a.test", "a.test"), on_demand("r/more", "m.test"), on_demand("other/x", "x.test"))
    assert names(story) == ["own", "r/a.test", "r/more"]
    merged = story.snapshot.routes["r"]
    story.comes(assignment("c", 81))
    assert story.snapshot.routes["r"] is merged  # so that its plan is taken over
    story.goes(VIRTUAL_HOST, "r/more")
    assert names(story) == ["own", "r/a.test"]


def test_a_virtual_host_that_waits_for_its_cluster_holds_up_no_other() -> None:
    story = vhds_story().comes(on_demand("r/slow", "s.test", to="missing"), on_demand("r/quick", "q.test"))
    assert names(story) == ["own", "r/quick"]
    assert "missing" in story.wanted(CLUSTER)
    story.comes(cluster("missing"), assignment("missing"))
    assert names(story) == ["own", "r/quick", "r/slow"]


def test_absent_virtual_hosts_are_remembered_and_the_oldest_forgotten() -> None:
    story = vhds_story()
    for name in ("r/a", "r/b", "r/c"):
        story.dependencies.want_host(name)
        story.goes(VIRTUAL_HOST, name)
    assert story.snapshot.answered_hosts == {"r/a", "r/b", "r/c"}
    assert story.dependencies.forget_absent_hosts(2) == ("r/a",)
    assert story.settle().snapshot.answered_hosts == {"r/b", "r/c"}
    assert story.wanted(VIRTUAL_HOST) == {"*", "r/b", "r/c"}
    story.comes(on_demand("r/b", "b"))
    assert story.snapshot.answered_hosts == {"r/b", "r/c"}
    story.dependencies.want_host("r/d")
    story.dependencies.found_host("r/d", "r/slow")
    assert story.comes(on_demand("r/slow", "d", to="missing")).snapshot.answered_hosts == {"r/b", "r/c"}
    story.comes(cluster("missing"), assignment("missing"))
    assert story.snapshot.answered_hosts == {"r/b", "r/c", "r/d"}  # no sooner than it is in force
    assert story.dependencies.forget_absent_hosts(0) == ("r/c",)


def test_a_domain_stands_in_one_virtual_host() -> None:
    story = vhds_story().comes(on_demand("r/a", "OWN.test"), on_demand("r/b", "b.test"), on_demand("r/c", "B.test"))
    assert names(story) == ["own", "r/b"]
    assert [issue.resource for issue in story.dependencies.take_issues()] == ["VirtualHost r/a", "VirtualHost r/c"]
    assert story.dependencies.take_issues() == ()
