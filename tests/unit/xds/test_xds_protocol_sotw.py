import pytest

from meshlib.sources.xds.cache import ResourceCache
from meshlib.sources.xds.does_not_exist import DoesNotExistTimers
from meshlib.sources.xds.events import (
    ProtocolWarning,
    ResourceDoesNotExist,
    ResourceFailed,
    ResourceRejected,
    ResourceRemoved,
    ResourceUpdate,
    ResponseProcessed,
)
from meshlib.sources.xds.protocol_sotw import SotwProtocol
from meshlib.sources.xds.reception import Receiver
from meshlib.sources.xds.subscriptions import Subscriptions
from meshlib.sources.xds.types import NamedError, SotwRequest, SotwResponse, WireResource
from parts.xds import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, body, of_type, wire


class Machine:
    """A protocol on an open stream, with a decoder that refuses bodies containing ``bad``."""

    def __init__(self, *subscribed: tuple[str, str]) -> None:
        self.subscriptions = Subscriptions()
        self.cache = ResourceCache()
        self.decoded: list[str] = []
        timers = DoesNotExistTimers(self.subscriptions, self.cache, 15.0)
        receiver = Receiver(self.subscriptions, self.cache, self._accept)
        self.protocol = SotwProtocol(receiver, timers, server="s", origin=0)
        self.protocol.stream_opened()
        for type_url, name in subscribed:
            self.subscriptions.add(type_url, name)

    def _accept(self, type_url: str, name: str, content: bytes) -> str | None:
        self.decoded.append(name)
        return "lb_policy: no such value" if b"bad" in content else None

    def respond(self, type_url: str, version: str, nonce: str, *resources: WireResource) -> list[object]:
        return list(self.protocol.received(SotwResponse(type_url, version, nonce, resources)))

    def requests(self) -> list[SotwRequest]:
        return self.protocol.requests()


def test_asks_make_before_break_and_only_the_first_carries_the_node() -> None:
    machine = Machine((ROUTE_CONFIGURATION, "r"), (LISTENER, "l"), (CLUSTER_LOAD_ASSIGNMENT, "e"), (CLUSTER, "c"))
    asked = [(request.type_url, request.resource_names, request.first) for request in machine.requests()]
    assert asked == [
        (CLUSTER, ("c",), True),
        (CLUSTER_LOAD_ASSIGNMENT, ("e",), False),
        (LISTENER, ("l",), False),
        (ROUTE_CONFIGURATION, ("r",), False),
    ]
    assert machine.requests() == []


def test_a_response_is_acked_with_its_nonce_and_version() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.requests()
    events = machine.respond(CLUSTER, "7", "n1", wire(CLUSTER, "a"))
    assert events == [ResourceUpdate(CLUSTER, "a", "7", body("a")), ResponseProcessed(CLUSTER, "7", None)]
    assert machine.requests() == [SotwRequest(CLUSTER, ("a",), "7", "n1")]


def test_good_ones_of_a_refused_response_are_used_and_the_bad_named() -> None:
    machine = Machine((CLUSTER, "a"), (CLUSTER, "b"))
    machine.requests()
    machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a", "old"), wire(CLUSTER, "b"))
    machine.requests()
    events = machine.respond(CLUSTER, "2", "n2", wire(CLUSTER, "a", "bad"), wire(CLUSTER, "b", "new"))
    reason = "lb_policy: no such value"
    assert events == [
        ResourceRejected(CLUSTER, "a", "2", reason, has_last_good=True),
        ResourceUpdate(CLUSTER, "b", "2", body("b", "new")),
        ResponseProcessed(CLUSTER, "2", f"Cluster 'a': {reason}"),
    ]
    assert machine.requests() == [SotwRequest(CLUSTER, ("a", "b"), "1", "n2", f"Cluster 'a': {reason}")]
    entry = machine.cache.get(CLUSTER, "a")
    assert entry is not None
    assert entry.body == body("a", "old")


def test_an_unchanged_resource_is_neither_decoded_nor_told_again() -> None:
    machine = Machine((CLUSTER, "*"))
    machine.requests()
    machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a"), wire(CLUSTER, "b"))
    events = machine.respond(CLUSTER, "2", "n2", wire(CLUSTER, "a"), wire(CLUSTER, "b", "new"))
    assert [event.name for event in of_type(events, ResourceUpdate)] == ["b"]
    assert machine.decoded == ["a", "b", "b"]


@pytest.mark.parametrize("type_url", [LISTENER, CLUSTER])
def test_absence_of_a_listener_or_cluster_is_removal(type_url: str) -> None:
    machine = Machine((type_url, "a"), (type_url, "b"))
    machine.requests()
    machine.respond(type_url, "1", "n1", wire(type_url, "a"), wire(type_url, "b"))
    events = machine.respond(type_url, "2", "n2", wire(type_url, "b"))
    assert of_type(events, ResourceRemoved) == [ResourceRemoved(type_url, "a")]


@pytest.mark.parametrize("type_url", [ROUTE_CONFIGURATION, CLUSTER_LOAD_ASSIGNMENT])
def test_absence_of_a_route_or_endpoints_means_nothing(type_url: str) -> None:
    machine = Machine((type_url, "a"), (type_url, "b"))
    machine.requests()
    machine.respond(type_url, "1", "n1", wire(type_url, "a"), wire(type_url, "b"))
    assert of_type(machine.respond(type_url, "2", "n2", wire(type_url, "b")), ResourceRemoved) == []
    assert machine.cache.is_known(type_url, "a")


def test_a_name_asked_for_a_moment_ago_is_not_missing_because_an_older_answer_lacks_it() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.requests()
    machine.subscriptions.add(CLUSTER, "b")
    events = machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a"))
    assert of_type(events, ResourceDoesNotExist) == []


def test_a_wildcard_alone_names_nothing_and_a_star_beside_names() -> None:
    machine = Machine((CLUSTER, "*"))
    assert machine.requests()[0].resource_names == ()
    machine.subscriptions.add(CLUSTER, "x")
    assert machine.requests()[0].resource_names == ("*", "x")
    machine.subscriptions.discard(CLUSTER, "x")
    assert machine.requests()[0].resource_names == ("*",), "nothing would now mean: unsubscribe from all"


def test_unsubscribing_from_the_last_name_is_said() -> None:
    machine = Machine((CLUSTER_LOAD_ASSIGNMENT, "a"))
    machine.requests()
    machine.subscriptions.discard(CLUSTER_LOAD_ASSIGNMENT, "a")
    assert machine.requests() == [SotwRequest(CLUSTER_LOAD_ASSIGNMENT, ())]


def test_a_new_stream_starts_without_nonces_and_with_the_version_held() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.requests()
    machine.respond(CLUSTER, "7", "n1", wire(CLUSTER, "a"))
    machine.protocol.stream_ended()
    machine.protocol.stream_opened()
    assert machine.requests() == [SotwRequest(CLUSTER, ("a",), "7", "", None, first=True)]


def test_another_server_makes_versions_meaningless() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.requests()
    machine.respond(CLUSTER, "7", "n1", wire(CLUSTER, "a"))
    machine.protocol.forget_versions()
    machine.protocol.stream_opened()
    assert machine.requests()[0].version_info == ""


def test_does_not_exist_is_counted_from_the_request_being_on_the_wire() -> None:
    machine = Machine((CLUSTER, "a"))
    (request,) = machine.requests()
    assert machine.protocol.deadline() is None, "not sent yet"
    machine.protocol.sent(request, now=100.0)
    assert machine.protocol.deadline() == 115.0
    assert machine.protocol.tick(114.9) == []
    assert machine.protocol.tick(115.0) == [ResourceDoesNotExist(CLUSTER, "a")]
    assert machine.protocol.deadline() is None


def test_a_lost_stream_stops_the_timer_and_the_next_starts_it_anew() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.protocol.sent(machine.requests()[0], now=100.0)
    machine.protocol.stream_ended()
    assert machine.protocol.tick(1000.0) == []
    machine.protocol.stream_opened()
    machine.protocol.sent(machine.requests()[0], now=1000.0)
    assert machine.protocol.deadline() == 1015.0


def test_a_later_request_does_not_prolong_the_timer() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.protocol.sent(machine.requests()[0], now=100.0)
    machine.subscriptions.add(CLUSTER, "b")
    machine.protocol.sent(machine.requests()[0], now=110.0)
    assert machine.protocol.tick(115.0) == [ResourceDoesNotExist(CLUSTER, "a")]
    assert machine.protocol.deadline() == 125.0


def test_what_did_not_exist_may_come_later() -> None:
    machine = Machine((ROUTE_CONFIGURATION, "r"))
    machine.protocol.sent(machine.requests()[0], now=0.0)
    machine.protocol.tick(15.0)
    events = machine.respond(ROUTE_CONFIGURATION, "1", "n1", wire(ROUTE_CONFIGURATION, "r"))
    assert [event.name for event in of_type(events, ResourceUpdate)] == ["r"]


def test_a_wildcard_without_any_answer_runs_out_too_and_an_empty_answer_settles_it() -> None:
    silent, empty = Machine((CLUSTER, "*")), Machine((CLUSTER, "*"))
    for machine in (silent, empty):
        machine.protocol.sent(machine.requests()[0], now=0.0)
    empty.respond(CLUSTER, "1", "n1")
    assert silent.protocol.tick(15.0) == [ResourceDoesNotExist(CLUSTER, "*")]
    assert empty.protocol.tick(15.0) == []


def test_types_nobody_asked_for_are_tolerated_and_not_answered() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.requests()
    (event,) = machine.respond("type.googleapis.com/some.Other", "1", "n1")
    assert isinstance(event, ProtocolWarning)
    assert machine.requests() == []


@pytest.mark.parametrize(
    "bad, says",
    [
        (WireResource(ROUTE_CONFIGURATION, body("x")), "is a type.googleapis.com/envoy.config.route"),
        (WireResource("", b""), "no name in 0 bytes of no type"),
        (WireResource(CLUSTER, b"\xff\xff\xff"), "no name in 3 bytes"),
        (WireResource(CLUSTER, b"\x0a\x02\xff\xfe"), "no name in 4 bytes"),
        (wire(CLUSTER, "a", "other"), "the same name twice"),
    ],
)
def test_malformed_resources_are_refused_by_place_and_the_rest_used(bad: WireResource, says: str) -> None:
    machine = Machine((CLUSTER, "*"))
    machine.requests()
    events = machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a"), bad)
    assert [event.name for event in of_type(events, ResourceUpdate)] == ["a"]
    error = machine.requests()[0].error_detail
    assert error is not None
    assert error.startswith("Cluster resources[1] ")
    assert says in error


def test_a_heartbeat_keeps_the_resource() -> None:
    machine = Machine((CLUSTER, "*"))
    machine.requests()
    machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a", wrapped=True))
    events = machine.respond(CLUSTER, "1", "n2", WireResource("", b"", "a", "1"))
    assert events == [ResponseProcessed(CLUSTER, "1", None)]


def test_names_nobody_asked_for_are_not_even_decoded() -> None:
    machine = Machine((CLUSTER_LOAD_ASSIGNMENT, "a"))
    machine.requests()
    machine.respond(CLUSTER_LOAD_ASSIGNMENT, "1", "n1", wire(CLUSTER_LOAD_ASSIGNMENT, "z", "bad"))
    assert machine.decoded == []
    assert machine.requests()[0].error_detail is None


def test_the_control_planes_own_errors() -> None:
    machine = Machine((CLUSTER, "a"), (CLUSTER, "b"))
    machine.requests()
    errors = (NamedError("a", 5, "no"), NamedError("b", 14, "later"), NamedError("z", 5, "not ours"))
    events = machine.protocol.received(SotwResponse(CLUSTER, "1", "n1", (), errors))
    assert events[:-1] == [
        ResourceDoesNotExist(CLUSTER, "a"),
        ResourceFailed(CLUSTER, "b", "status 14: later"),
    ]


def test_the_same_response_twice_is_answered_twice_and_changes_nothing() -> None:
    machine = Machine((CLUSTER, "a"))
    machine.requests()
    machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a"))
    machine.requests()
    events = machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "a"))
    assert events == [ResponseProcessed(CLUSTER, "1", None)]
    assert machine.requests() == [SotwRequest(CLUSTER, ("a",), "1", "n1")]


def test_a_refused_newcomer_that_goes_away_is_forgotten() -> None:
    machine = Machine((CLUSTER, "*"))
    machine.requests()
    machine.respond(CLUSTER, "1", "n1", wire(CLUSTER, "x", "bad"))
    machine.respond(CLUSTER, "2", "n2")
    assert all(entry.rejection is None for entry in machine.cache.entries(CLUSTER).values())


def test_a_long_list_of_errors_is_cut() -> None:
    machine = Machine((CLUSTER, "*"))
    machine.requests()
    machine.respond(CLUSTER, "1", "n1", *(wire(CLUSTER, f"c{i}", "bad") for i in range(40)))
    error = machine.requests()[0].error_detail
    assert error is not None
    assert error.splitlines()[-1] == "and 8 more"


@pytest.mark.parametrize("type_url", [LISTENER, CLUSTER])
@pytest.mark.parametrize("junk", [WireResource("", b"\xff\xff"), wire(ROUTE_CONFIGURATION, "a")], ids=["bytes", "type"])
def test_absence_from_a_malformed_response_says_nothing(type_url: str, junk: WireResource) -> None:
    """The piece that cannot be read may be the very one that seems to be missing."""
    machine = Machine((type_url, "a"), (type_url, "b"))
    machine.requests()
    machine.respond(type_url, "1", "n1", wire(type_url, "a"), wire(type_url, "b"))
    events = machine.respond(type_url, "2", "n2", wire(type_url, "b", "new"), junk)
    assert [event.name for event in of_type(events, ResourceUpdate)] == ["b"]
    assert not of_type(events, ResourceRemoved)
    assert of_type(events, ResponseProcessed)[0].error
    events = machine.respond(type_url, "3", "n3", wire(type_url, "b", "new"))
    assert [event.name for event in of_type(events, ResourceRemoved)] == ["a"]
