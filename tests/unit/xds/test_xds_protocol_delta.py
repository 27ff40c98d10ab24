from meshlib.sources.xds.cache import ResourceCache
from meshlib.sources.xds.does_not_exist import DoesNotExistTimers
from meshlib.sources.xds.events import (
    ResourceAliased,
    ResourceDoesNotExist,
    ResourceRejected,
    ResourceRemoved,
    ResourceUpdate,
    ResponseProcessed,
)
from meshlib.sources.xds.protocol_delta import DeltaProtocol
from meshlib.sources.xds.reception import Receiver
from meshlib.sources.xds.subscriptions import Subscriptions
from meshlib.sources.xds.types import VIRTUAL_HOST, DeltaRequest, DeltaResponse, WireResource
from parts.xds import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, body, of_type, wire

EDS = CLUSTER_LOAD_ASSIGNMENT


class Machine:
    def __init__(self, *subscribed: tuple[str, str], origin: int = 0) -> None:
        self.subscriptions = Subscriptions()
        self.cache = ResourceCache()
        self.receiver = Receiver(self.subscriptions, self.cache, lambda t, n, b: "no good" if b"bad" in b else None)
        self.protocol = self.server(origin)
        for type_url, name in subscribed:
            self.subscriptions.add(type_url, name)

    def server(self, origin: int) -> DeltaProtocol:
        timers = DoesNotExistTimers(self.subscriptions, self.cache, 15.0)
        protocol = DeltaProtocol(self.receiver, timers, server="s", origin=origin)
        protocol.stream_opened()
        return protocol

    def respond(self, type_url: str, nonce: str, *resources: WireResource, removed: tuple[str, ...] = ()) -> list:
        return self.protocol.received(DeltaResponse(type_url, nonce, resources, removed, "sys"))

    def requests(self) -> list[DeltaRequest]:
        return self.protocol.requests()


def test_only_changes_of_the_subscription_are_sent() -> None:
    machine = Machine((EDS, "a"), (EDS, "b"))
    assert machine.requests() == [DeltaRequest(EDS, ("a", "b"), first=True)]
    machine.subscriptions.add(EDS, "c")
    machine.subscriptions.discard(EDS, "a")
    assert machine.requests() == [DeltaRequest(EDS, ("c",), ("a",))]
    assert machine.requests() == []


def test_each_response_is_answered_and_the_first_answer_rides_on_a_change() -> None:
    machine = Machine((EDS, "a"))
    machine.requests()
    machine.respond(EDS, "n1", wire(EDS, "a", wrapped=True, version="1"))
    machine.respond(EDS, "n2", wire(EDS, "a", "bad", wrapped=True, version="2"))
    machine.subscriptions.add(EDS, "b")
    assert machine.requests() == [
        DeltaRequest(EDS, ("b",), response_nonce="n1"),
        DeltaRequest(EDS, response_nonce="n2", error_detail="ClusterLoadAssignment 'a': no good"),
    ]


def test_a_new_stream_resumes_with_the_versions_of_the_last_good() -> None:
    machine = Machine((EDS, "a"), (EDS, "b"))
    machine.requests()
    machine.respond(EDS, "n1", wire(EDS, "a", wrapped=True, version="1"), wire(EDS, "b", wrapped=True, version="5"))
    machine.respond(EDS, "n2", wire(EDS, "a", "bad", wrapped=True, version="2"))
    machine.protocol.stream_ended()
    machine.protocol.stream_opened()
    assert machine.requests() == [DeltaRequest(EDS, ("a", "b"), (), (("a", "1"), ("b", "5")), first=True)]


def test_versions_of_another_server_are_not_claimed() -> None:
    machine = Machine((EDS, "a"))
    machine.requests()
    machine.respond(EDS, "n1", wire(EDS, "a", wrapped=True, version="1"))
    machine.protocol = machine.server(origin=1)
    assert machine.requests() == [DeltaRequest(EDS, ("a",), first=True)]


def test_a_wildcard_opens_a_type_by_naming_nothing_and_resumes_with_all_it_holds() -> None:
    machine = Machine((CLUSTER, "*"))
    assert machine.requests() == [DeltaRequest(CLUSTER, first=True)]
    machine.respond(CLUSTER, "n1", wire(CLUSTER, "a", wrapped=True, version="1"))
    machine.protocol.stream_opened()
    assert machine.requests() == [DeltaRequest(CLUSTER, (), (), (("a", "1"),), first=True)]


def test_removed_resources() -> None:
    machine = Machine((CLUSTER, "*"), (EDS, "e"))
    machine.requests()
    machine.respond(CLUSTER, "n1", wire(CLUSTER, "a", wrapped=True, version="1"))
    assert machine.respond(CLUSTER, "n2", removed=("a", "never-seen"))[:-1] == [ResourceRemoved(CLUSTER, "a")]
    assert machine.respond(EDS, "n3", removed=("e",))[:-1] == [ResourceDoesNotExist(EDS, "e")]
    assert machine.respond(EDS, "n4", removed=("e",))[:-1] == [], "said once"


def test_a_resource_is_known_by_its_alias() -> None:
    machine = Machine((CLUSTER, "nick"))
    machine.requests()
    resource = WireResource(CLUSTER, body("real"), "real", "1", ("nick",))
    events = machine.respond(CLUSTER, "n1", resource)
    assert of_type(events, ResourceUpdate) == [ResourceUpdate(CLUSTER, "nick", "1", body("real"))]


def test_a_refused_resource_leaves_the_rest_and_the_last_good() -> None:
    machine = Machine((EDS, "a"), (EDS, "b"))
    machine.requests()
    machine.respond(EDS, "n1", wire(EDS, "a", wrapped=True, version="1"))
    events = machine.respond(
        EDS, "n2", wire(EDS, "a", "bad", wrapped=True, version="2"), wire(EDS, "b", wrapped=True, version="1")
    )
    assert events == [
        ResourceRejected(EDS, "a", "2", "no good", has_last_good=True),
        ResourceUpdate(EDS, "b", "1", body("b")),
        ResponseProcessed(EDS, "sys", "ClusterLoadAssignment 'a': no good"),
    ]


def test_does_not_exist_runs_for_what_is_asked_for_not_for_what_is_held() -> None:
    machine = Machine((EDS, "a"))
    machine.protocol.sent(machine.requests()[0], now=0.0)
    machine.respond(EDS, "n1", wire(EDS, "a", wrapped=True, version="1"))
    machine.subscriptions.add(EDS, "b")
    (request,) = machine.requests()
    machine.protocol.sent(request, now=1.0)
    assert machine.protocol.tick(20.0) == [ResourceDoesNotExist(EDS, "b")]


def test_an_answer_is_no_request_for_everything() -> None:
    machine = Machine((CLUSTER, "*"))
    machine.requests()
    machine.subscriptions.discard(CLUSTER, "*")
    machine.subscriptions.add(CLUSTER, "a")
    (request,) = machine.requests()
    assert (request.subscribe, request.unsubscribe) == (("a",), ("*",))


def named(name: str, *aliases: str, content: str | None = "1") -> WireResource:
    """A virtual host under a name of its own, or what says that there is none."""
    made = wire(VIRTUAL_HOST, name, content or "", wrapped=True, version="1")
    return WireResource(
        "" if content is None else VIRTUAL_HOST, b"" if content is None else made.body, name, "1", aliases
    )


def test_a_resource_that_answers_for_other_names_is_kept_once() -> None:
    machine = Machine((VIRTUAL_HOST, "*"), (VIRTUAL_HOST, "r/a"), (VIRTUAL_HOST, "r/b"))
    (request,) = machine.requests()
    machine.protocol.sent(request, 0.0)
    events = machine.respond(VIRTUAL_HOST, "n1", named("r/first", "r/a", "r/unasked"))
    assert of_type(events, ResourceAliased) == [ResourceAliased(VIRTUAL_HOST, "r/first", "r/a")]
    assert [event.name for event in of_type(events, ResourceUpdate)] == ["r/first"]
    # An update need not say the aliases again, and a name that was answered for has no timer.
    events = machine.respond(VIRTUAL_HOST, "n2", named("r/first", content="2"))
    assert [event.name for event in of_type(events, ResourceUpdate)] == ["r/first"]
    assert machine.protocol.tick(16.0) == [ResourceDoesNotExist(VIRTUAL_HOST, "r/b")]
    events = machine.respond(VIRTUAL_HOST, "n3", removed=("r/first",))
    assert [event.name for event in of_type(events, ResourceRemoved)] == ["r/first", "r/a"]


def test_a_virtual_host_without_content_does_not_exist() -> None:
    machine = Machine((VIRTUAL_HOST, "*"), (VIRTUAL_HOST, "r/a"))
    machine.requests()
    events = machine.respond(VIRTUAL_HOST, "n1", named("r/nothing", "r/a", content=None))
    assert of_type(events, ResourceDoesNotExist) == [ResourceDoesNotExist(VIRTUAL_HOST, "r/a")]
    machine.respond(VIRTUAL_HOST, "n2", named("r/a"))
    events = machine.respond(VIRTUAL_HOST, "n3", named("r/a", content=None))  # of one that is there: still valid
    assert not of_type(events, ResourceRemoved)
    assert machine.cache.is_known(VIRTUAL_HOST, "r/a")
