from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from meshlib.control.ads_messages import LONGEST_ERROR, sotw_request
from meshlib.control.push_order import steps
from meshlib.control.resource_store import Resource, ResourceStore, StoreVersion
from meshlib.control.subscriber import MAX_TYPES, Subscriber, TooManyTypesError
from meshlib.control.subscriber_delta import DeltaSubscriber
from meshlib.control.subscriber_sotw import SotwSubscriber
from meshlib.sources.xds.types import DeltaRequest, DeltaResponse, SotwRequest, SotwResponse
from parts.xds import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    api_listener,
    body,
    cluster,
    endpoints,
    resources,
    routes,
    socket_listener,
)

EDS = CLUSTER_LOAD_ASSIGNMENT


def of(type_url: str, name: str, content: str = "") -> Resource:
    return Resource.of_bytes(type_url, body(name, content))


def version(*held: Resource) -> StoreVersion:
    return ResourceStore(held).current


def names(response: SotwResponse | DeltaResponse) -> list[str]:
    return [resource.name for resource in response.resources]


def ack(subscriber: SotwSubscriber, response: SotwResponse, *asked: str) -> None:
    subscriber.request(SotwRequest(response.type_url, asked, response.version_info, response.nonce))


def test_a_store_changes_only_when_content_does_and_tells_its_watchers() -> None:
    store = ResourceStore([of(CLUSTER, "a")])
    told: list[int] = []
    stop = store.watch(lambda: told.append(store.current.number))
    assert store.replace([of(CLUSTER, "a")]).number == 1
    assert store.replace([of(CLUSTER, "a", "new")]).number == 2
    with pytest.raises(ValueError, match="two resources"):
        store.replace([of(CLUSTER, "a"), of(CLUSTER, "a", "other")])
    assert store.current.view(CLUSTER)["a"].body == body("a", "new")
    stop()
    stop()
    store.replace([])
    assert told == [2]


def test_a_resource_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="has no name"):
        Resource.of_bytes(CLUSTER, b"\xff")


def test_growing_comes_first_and_shrinking_last() -> None:
    old = version(of(CLUSTER, "a"), of(EDS, "a"), of(LISTENER, "l"), of(ROUTE_CONFIGURATION, "r", "to a"))
    new = version(of(CLUSTER, "b"), of(EDS, "b"), of(LISTENER, "l"), of(ROUTE_CONFIGURATION, "r", "to b"))
    assert [(step.type_url, sorted(step.view)) for step in steps(old.types, new)] == [
        (CLUSTER, ["a", "b"]),
        (EDS, ["a", "b"]),
        (ROUTE_CONFIGURATION, ["r"]),
        (CLUSTER, ["b"]),
        (EDS, ["b"]),
    ]
    assert steps(old.types, old) == []


def test_a_proxyless_listener_is_for_those_who_name_it() -> None:
    held = version(*resources(api_listener("by-name", "r"), socket_listener("for-proxies", "r")))
    for asked, expected in (((), ["for-proxies"]), (("by-name",), ["by-name"]), (("*", "by-name"), None)):
        subscriber = SotwSubscriber(held)
        subscriber.request(SotwRequest(LISTENER, asked))
        (response,) = subscriber.responses(0.0)
        assert names(response) == expected or sorted(names(response)) == ["by-name", "for-proxies"]


def test_sotw_sends_clusters_whole_and_of_endpoints_what_is_new() -> None:
    subscriber = SotwSubscriber(version(of(CLUSTER, "a"), of(CLUSTER, "b"), of(EDS, "a"), of(EDS, "b")))
    subscriber.request(SotwRequest(CLUSTER))
    subscriber.request(SotwRequest(EDS, ("a", "b")))
    clusters, eds = subscriber.responses(0.0)
    assert (names(clusters), names(eds)) == (["a", "b"], ["a", "b"])
    ack(subscriber, clusters)
    ack(subscriber, eds, "a", "b")
    assert subscriber.responses(0.0) == []
    subscriber.publish(
        StoreVersion(9, version(of(CLUSTER, "a", "2"), of(CLUSTER, "b"), of(EDS, "a"), of(EDS, "b", "2")).types)
    )
    (clusters,) = subscriber.responses(1.0)
    assert names(clusters) == ["a", "b"]
    ack(subscriber, clusters)
    (eds,) = subscriber.responses(1.0)
    assert names(eds) == ["b"]


def test_routes_wait_until_clusters_are_taken_but_not_for_ever() -> None:
    subscriber = SotwSubscriber(version(of(CLUSTER, "a"), of(ROUTE_CONFIGURATION, "r")))
    subscriber.request(SotwRequest(CLUSTER))
    subscriber.request(SotwRequest(ROUTE_CONFIGURATION, ("r",)))
    for response in subscriber.responses(0.0):
        ack(subscriber, response, *(() if response.type_url == CLUSTER else ("r",)))
    target = version(of(CLUSTER, "b"), of(ROUTE_CONFIGURATION, "r", "to b"))
    subscriber.publish(StoreVersion(2, target.types))
    (clusters,) = subscriber.responses(10.0)
    assert names(clusters) == ["a", "b"]
    assert subscriber.responses(10.5) == []
    assert subscriber.deadline() == 11.0
    (moved,) = subscriber.responses(11.0)
    assert moved.type_url == ROUTE_CONFIGURATION
    ack(subscriber, clusters)
    ack(subscriber, moved, "r")
    (shrunk,) = subscriber.responses(11.1)
    assert names(shrunk) == ["b"]
    assert subscriber.deadline() is None


def test_a_proxy_gets_routes_to_a_new_cluster_after_its_endpoints() -> None:
    subscriber = SotwSubscriber(version(*resources(cluster("a"), endpoints("a"), routes("r", "a"))))
    for request in (SotwRequest(CLUSTER), SotwRequest(EDS, ("a",)), SotwRequest(ROUTE_CONFIGURATION, ("r",))):
        subscriber.request(request)
    asked = {CLUSTER: (), EDS: ("a",), ROUTE_CONFIGURATION: ("r",)}
    for response in subscriber.responses(0.0):
        ack(subscriber, response, *asked[response.type_url])
    everything = resources(cluster("a"), endpoints("a"), cluster("b"), endpoints("b"), routes("r", "b"))
    subscriber.publish(StoreVersion(2, version(*everything).types))
    (clusters,) = subscriber.responses(10.0)
    ack(subscriber, clusters)
    assert subscriber.responses(10.1) == [], "the proxy has not asked for the endpoints of b yet"
    subscriber.request(SotwRequest(EDS, ("a", "b"), "x", subscriber.types[EDS].nonce))
    (eds,) = subscriber.responses(10.2)
    assert names(eds) == ["b"]
    ack(subscriber, eds, "a", "b")
    (moved,) = subscriber.responses(10.3)
    assert moved.type_url == ROUTE_CONFIGURATION


def test_sotw_stale_requests_are_passed_over() -> None:
    subscriber = SotwSubscriber(version(of(EDS, "a"), of(EDS, "b")))
    subscriber.request(SotwRequest(EDS, ("a",)))
    (response,) = subscriber.responses(0.0)
    subscriber.request(SotwRequest(EDS, ("a", "b"), "", "older"))
    assert subscriber.responses(0.0) == []
    ack(subscriber, response, "a", "b")
    (response,) = subscriber.responses(0.0)
    assert names(response) == ["b"]


def test_a_nack_is_recorded_and_news_once() -> None:
    subscriber = SotwSubscriber(version(of(CLUSTER, "a")))
    subscriber.request(SotwRequest(CLUSTER))
    (first,) = subscriber.responses(0.0)
    assert subscriber.request(SotwRequest(CLUSTER, (), "", first.nonce, "no good")) == "no good"
    subscriber.publish(StoreVersion(2, version(of(CLUSTER, "a", "2")).types))
    (second,) = subscriber.responses(0.0)
    assert subscriber.request(SotwRequest(CLUSTER, (), "", second.nonce, "no good")) is None
    state = subscriber.types[CLUSTER]
    assert (state.nacks, state.last_nack, state.acked_version) == (2, "no good", "")
    subscriber.publish(StoreVersion(3, version(of(CLUSTER, "a", "3")).types))
    (third,) = subscriber.responses(0.0)
    ack(subscriber, third)
    assert (state.last_nack, state.acked_version) == (None, third.version_info)


def test_naming_nothing_means_all_at_first_and_nothing_later() -> None:
    subscriber = SotwSubscriber(version(of(CLUSTER, "a"), of(CLUSTER, "b")))
    subscriber.request(SotwRequest(CLUSTER, ("a",)))
    (response,) = subscriber.responses(0.0)
    ack(subscriber, response)
    subscriber.responses(0.0)
    assert not subscriber.types[CLUSTER].is_wildcard
    assert subscriber.types[CLUSTER].names == set()


def test_a_listener_that_does_not_exist_is_answered_by_its_absence() -> None:
    subscriber = SotwSubscriber(version())
    subscriber.request(SotwRequest(LISTENER, ("nope",)))
    (response,) = subscriber.responses(0.0)
    assert names(response) == []


def test_delta_sends_changes_names_what_is_gone_and_what_never_was() -> None:
    subscriber = DeltaSubscriber(version(of(EDS, "a"), of(EDS, "b")))
    subscriber.request(DeltaRequest(EDS, ("a", "b", "nope")))
    (response,) = subscriber.responses(0.0)
    assert (names(response), response.removed) == (["a", "b"], ("nope",))
    subscriber.request(DeltaRequest(EDS, response_nonce=response.nonce))
    subscriber.publish(StoreVersion(2, version(of(EDS, "a", "2")).types))
    grown, shrunk = [*subscriber.responses(0.0), *subscriber.responses(2.0)]
    assert (names(grown), grown.removed) == (["a"], ())
    assert (names(shrunk), shrunk.removed) == ([], ("b",))


def test_delta_resumes_from_the_versions_the_client_holds() -> None:
    held = version(of(CLUSTER, "same"), of(CLUSTER, "changed", "2"))
    subscriber = DeltaSubscriber(held)
    versions = (("same", held.view(CLUSTER)["same"].version), ("changed", "old"), ("gone", "1"))
    subscriber.request(DeltaRequest(CLUSTER, initial_resource_versions=versions))
    (response,) = subscriber.responses(0.0)
    assert (names(response), response.removed) == (["changed"], ("gone",))


def test_delta_wildcard_gets_an_answer_even_if_there_is_nothing() -> None:
    subscriber = DeltaSubscriber(version())
    subscriber.request(DeltaRequest(CLUSTER))
    (response,) = subscriber.responses(0.0)
    assert (names(response), response.removed) == ([], ())


def test_delta_asking_again_sends_again() -> None:
    subscriber = DeltaSubscriber(version(of(EDS, "a")))
    subscriber.request(DeltaRequest(EDS, ("a",)))
    subscriber.responses(0.0)
    subscriber.request(DeltaRequest(EDS, ("a",)))
    (response,) = subscriber.responses(0.0)
    assert names(response) == ["a"]
    subscriber.request(DeltaRequest(EDS, (), ("a",)))
    subscriber.publish(StoreVersion(2, version(of(EDS, "a", "2")).types))
    assert subscriber.responses(9.0) == []


@pytest.mark.parametrize("variant, request_of", [(SotwSubscriber, SotwRequest), (DeltaSubscriber, DeltaRequest)])
def test_the_types_of_one_stream_are_bounded(variant: type[Subscriber[Any, Any]], request_of: Any) -> None:
    subscriber = variant(version())
    for number in range(MAX_TYPES):
        subscriber.request(request_of(f"made.up/{number}"))
    subscriber.request(request_of("made.up/0"))
    with pytest.raises(TooManyTypesError):
        subscriber.request(request_of("one more"))
    assert len(subscriber.types) == MAX_TYPES


def test_the_reason_of_a_nack_is_kept_in_part() -> None:
    message = discovery_pb2.DiscoveryRequest(type_url=CLUSTER)
    message.error_detail.message = "x" * 1_000_000
    assert sotw_request(message).error_detail == "x" * LONGEST_ERROR
