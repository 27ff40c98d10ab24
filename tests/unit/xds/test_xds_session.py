import pytest

from meshlib.model.backoff import BackoffPolicy
from meshlib.sources.xds.events import ResourceUpdate, StreamConnected, StreamEnded
from meshlib.sources.xds.session import Action, AdsSession, Delta, OpenStream, SendRequest
from meshlib.sources.xds.types import DeltaRequest, SotwRequest, SotwResponse
from parts.xds import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, of_type, wire

EDS = CLUSTER_LOAD_ASSIGNMENT
NO_JITTER = BackoffPolicy(jitter=0.0)


class Half:
    def random(self) -> float:
        return 0.5


def session_of(*servers: str, delta: Delta = False) -> AdsSession:
    return AdsSession(servers or ("one",), lambda *_: None, Half(), delta=delta, backoff=NO_JITTER)


def kinds(actions: list[Action]) -> list[tuple[str, int]]:
    return [(type(action).__name__, action.link) for action in actions]


def answer(version: str = "1", *names: str) -> SotwResponse:
    return SotwResponse(EDS, version, "n" + version, tuple(wire(EDS, name) for name in names))


def test_nothing_is_opened_before_the_first_subscription() -> None:
    session = session_of()
    assert session.poll(0.0) == []
    assert session.deadline() is None
    session.subscribe(EDS, "a")
    assert session.poll(0.0) == [OpenStream(0, delta=False), SendRequest(0, SotwRequest(EDS, ("a",), first=True))]


def test_ends_without_an_answer_back_off_and_the_first_answer_resets_it() -> None:
    session = session_of()
    session.subscribe(EDS, "a")
    now, waits = 0.0, []
    for _ in range(12):
        assert kinds(session.poll(now))[0] == ("OpenStream", 0)
        (ended,) = of_type(session.stream_ended(0, "UNAVAILABLE", "refused", now), StreamEnded)
        assert ended.is_failure
        waits.append(round(ended.retry_in, 3))
        assert session.poll(now + ended.retry_in - 0.001) == []
        assert session.deadline() == pytest.approx(now + ended.retry_in)
        now += ended.retry_in
    assert waits == [0.5, 0.8, 1.28, 2.048, 3.277, 5.243, 8.389, 13.422, 21.475, 30.0, 30.0, 30.0]
    session.poll(now)
    session.received(0, answer("1", "a"), now)
    session.stream_ended(0, "UNAVAILABLE", "gone", now + 100)
    session.poll(now + 100)
    (ended,) = of_type(session.stream_ended(0, "UNAVAILABLE", "refused", now + 100), StreamEnded)
    assert ended.retry_in == 0.5


def test_an_end_after_an_answer_is_normal_and_reopens_at_once_but_not_in_a_hot_loop() -> None:
    session = session_of()
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("1", "a"), 0.1)
    (ended,) = of_type(session.stream_ended(0, "OK", "bye", 60.0), StreamEnded)
    assert (ended.is_failure, ended.retry_in) == (False, 0.0)
    assert kinds(session.poll(60.0))[0] == ("OpenStream", 0)
    session.received(0, answer("1", "a"), 60.1)
    (ended,) = of_type(session.stream_ended(0, "OK", "bye", 60.1), StreamEnded)
    assert ended.retry_in == pytest.approx(0.4), "streams open at most every half second"


def test_a_long_stream_that_had_nothing_to_say_is_no_failure() -> None:
    session = session_of()
    session.subscribe(EDS, "a")
    for lived, failed in ((29.0, True), (30.0, False)):
        opened, send = session.poll(start := 1000.0 * lived)
        assert isinstance(opened, OpenStream)
        assert isinstance(send, SendRequest)
        session.request_sent(0, send.request, start)
        (ended,) = of_type(session.stream_ended(0, "UNAVAILABLE", "gone", start + lived), StreamEnded)
        assert ended.is_failure is failed


def test_a_fault_is_a_failure_even_after_an_answer() -> None:
    session = session_of()
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("1", "a"), 0.1)
    (ended,) = of_type(session.stream_ended(0, "INTERNAL", "garbage", 60.0, is_fault=True), StreamEnded)
    assert (ended.is_failure, ended.retry_in) == (True, 0.5)


def test_auto_takes_state_of_the_world_from_a_server_without_delta() -> None:
    session = session_of(delta="auto")
    session.subscribe(EDS, "a")
    actions = session.poll(0.0)
    assert actions[0] == OpenStream(0, delta=True)
    assert isinstance(actions[1], SendRequest)
    assert isinstance(actions[1].request, DeltaRequest)
    (ended,) = of_type(session.stream_ended(0, "UNIMPLEMENTED", "what?", 0.0), StreamEnded)
    assert (ended.is_failure, ended.retry_in) == (False, 0.0)
    actions = session.poll(0.0)
    assert actions[0] == OpenStream(0, delta=False)
    assert isinstance(actions[1], SendRequest)
    assert isinstance(actions[1].request, SotwRequest)
    (ended,) = of_type(session.stream_ended(0, "UNIMPLEMENTED", "what?", 0.0), StreamEnded)
    assert ended.is_failure, "there is nothing else to fall back to"


def test_delta_by_order_does_not_fall_back() -> None:
    session = session_of(delta=True)
    session.subscribe(EDS, "a")
    session.poll(0.0)
    (ended,) = of_type(session.stream_ended(0, "UNIMPLEMENTED", "what?", 0.0), StreamEnded)
    assert ended.is_failure
    assert session.poll(0.5)[0] == OpenStream(0, delta=True)


def test_the_next_server_is_asked_when_one_is_unreachable_and_something_is_not_known() -> None:
    session = session_of("primary", "second", "third")
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.stream_ended(0, "UNAVAILABLE", "refused", 0.0)
    assert kinds(session.poll(0.0)) == [("OpenStream", 1), ("SendRequest", 1)]
    session.stream_ended(1, "UNAVAILABLE", "refused", 0.0)
    assert kinds(session.poll(0.0)) == [("OpenStream", 2), ("SendRequest", 2)]
    events = session.received(2, answer("1", "a"), 0.1)
    assert of_type(events, StreamConnected) == [StreamConnected("third", fallback=True)]
    assert session.stats().server == "third"


def test_a_known_configuration_needs_no_fallback_until_something_new_is_asked_for() -> None:
    session = session_of("primary", "second")
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("1", "a"), 0.1)
    session.stream_ended(0, "UNAVAILABLE", "gone", 10.0)
    session.poll(10.0)
    session.stream_ended(0, "UNAVAILABLE", "refused", 10.0)
    assert session.poll(10.0) == []
    session.subscribe(EDS, "b")
    assert kinds(session.poll(10.0)) == [("OpenStream", 1), ("SendRequest", 1)]


def test_the_primary_is_tried_on_and_takes_over_with_its_first_answer() -> None:
    session = session_of("primary", "second")
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.stream_ended(0, "UNAVAILABLE", "refused", 0.0)
    session.poll(0.0)
    session.received(1, answer("77", "a"), 0.1)
    assert kinds(session.poll(0.1)) == [("SendRequest", 1)]
    assert kinds(session.poll(0.5)) == [("OpenStream", 0), ("SendRequest", 0)]
    events = session.received(0, SotwResponse(EDS, "1", "n", (wire(EDS, "a", "newer"),)), 0.6)
    assert len(of_type(events, ResourceUpdate)) == 1
    assert kinds(session.poll(0.6)) == [("CloseStream", 1), ("SendRequest", 0)]
    assert session.stats().server == "primary"


def test_versions_of_one_server_are_never_claimed_at_another() -> None:
    session = session_of("primary", "second")
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("from-primary", "a"), 0.1)
    session.stream_ended(0, "UNAVAILABLE", "gone", 10.0)
    session.poll(10.0)
    session.stream_ended(0, "UNAVAILABLE", "refused", 10.0)
    session.subscribe(EDS, "b")
    (_, request) = session.poll(10.0)
    assert isinstance(request, SendRequest)
    assert request.request == SotwRequest(EDS, ("a", "b"), first=True)
    session.received(1, answer("from-second", "a", "b"), 10.1)
    session.poll(10.1)
    (_, request) = session.poll(10.5)
    assert isinstance(request, SendRequest)
    assert request.request == SotwRequest(EDS, ("a", "b"), first=True), "what primary sent is no longer what is held"


def test_after_a_fork_streams_are_opened_anew_and_knowledge_is_kept() -> None:
    session = session_of()
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("1", "a"), 0.1)
    session.streams_lost()
    assert kinds(session.poll(5.0)) == [("OpenStream", 0), ("SendRequest", 0)]
    assert of_type(session.received(0, answer("1", "a"), 5.1), ResourceUpdate) == []


def test_unsubscribed_resources_are_forgotten_and_asked_for_anew() -> None:
    session = session_of()
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("1", "a"), 0.1)
    session.unsubscribe(EDS, "a")
    session.poll(0.2)
    session.subscribe(EDS, "a")
    session.poll(0.3)
    assert len(of_type(session.received(0, answer("2", "a"), 0.4), ResourceUpdate)) == 1


def test_stats_tell_running_from_rejected() -> None:
    session = AdsSession(("one",), lambda t, n, b: "no" if b"bad" in b else None, Half(), delta=False)
    session.subscribe(EDS, "a")
    session.poll(0.0)
    session.received(0, answer("1", "a"), 1.0)
    session.received(0, SotwResponse(EDS, "2", "n2", (wire(EDS, "a", "bad"),)), 2.0)
    of_eds = session.stats().types[EDS]
    assert (of_eds.version, of_eds.resources, of_eds.updates_valid, of_eds.updates_invalid) == ("1", 1, 1, 1)
    assert of_eds.last_update == 2.0
    assert [(name, r.version, r.reason) for name, r in of_eds.rejected] == [("a", "2", "no")]
    assert CLUSTER not in session.stats().types


def test_back_off_never_exceeds_its_maximum_and_spreads() -> None:
    policy = BackoffPolicy()

    class Fixed:
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self) -> float:
            return self.value

    assert policy.delay(1, Fixed(0.0)) == 0.25
    assert policy.delay(1, Fixed(1.0)) == 0.75
    assert policy.delay(10**6, Fixed(1.0)) == 30.0
