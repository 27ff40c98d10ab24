"""Any interleaving of subscriptions, responses, deaths of servers and time keeps the promises of the protocol."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshlib.sources.xds.events import (
    Event,
    ResourceDoesNotExist,
    ResourceRemoved,
    ResourceUpdate,
)
from meshlib.sources.xds.session import AdsSession, CloseStream, OpenStream, SendRequest
from meshlib.sources.xds.types import DeltaRequest, DeltaResponse, Request, SotwRequest, SotwResponse
from parts.xds import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, body, wire

TYPES = st.sampled_from([CLUSTER, CLUSTER_LOAD_ASSIGNMENT])
NAMES = st.sampled_from(["a", "b", "c"])
CONTENT = st.sampled_from(["1", "2", "3", "bad"])


class OpenedStream:
    """What the server of one open stream was told, by the rules of the protocol."""

    def __init__(self, *, delta: bool) -> None:
        self.delta = delta
        self.requests: list[Request] = []
        self.names: dict[str, set[str]] = {}
        self.unanswered: dict[str, list[str]] = {}
        self.last_nonce: dict[str, str] = {}

    def take(self, request: Request) -> None:
        assert request.first == (not self.requests), "the node is in the first request of a stream and in no other"
        self.requests.append(request)
        if isinstance(request, SotwRequest):
            self._take_sotw(request)
        else:
            self._take_delta(request)

    def _take_sotw(self, request: SotwRequest) -> None:
        assert request.response_nonce == self.last_nonce.get(request.type_url, ""), "the newest nonce is echoed"
        self.unanswered[request.type_url] = []
        self.names[request.type_url] = set(request.resource_names)

    def _take_delta(self, request: DeltaRequest) -> None:
        if request.response_nonce:
            assert self.unanswered[request.type_url].pop(0) == request.response_nonce, "answers in order, each once"
        names = self.names.setdefault(request.type_url, set())
        assert not names & set(request.subscribe), "subscribed already"
        assert set(request.unsubscribe) <= names, "not subscribed"
        self.names[request.type_url] = (names | set(request.subscribe)) - set(request.unsubscribe)


class XdsClientMachine(RuleBasedStateMachine):
    @initialize(delta=st.booleans(), seed=st.randoms(use_true_random=False))
    def start(self, delta: bool, seed: object) -> None:
        self.delta = delta
        self.now = 0.0
        self.nonces = 0
        self.wanted: dict[str, set[str]] = {}
        self.good: dict[tuple[str, str], bytes] = {}
        self.streams: dict[int, OpenedStream] = {}
        self.session = AdsSession(
            ("primary", "fallback"),
            lambda t, n, b: "refused" if b.endswith(b"bad") else None,
            seed,  # type: ignore[arg-type]
            delta=delta,
        )
        self.act()

    def act(self) -> None:
        for action in self.session.poll(self.now):
            match action:
                case OpenStream(link, delta):
                    assert link not in self.streams, "one stream a server"
                    assert delta == self.delta
                    self.streams[link] = OpenedStream(delta=delta)
                case CloseStream(link):
                    del self.streams[link]
                case SendRequest(link, request):
                    self.streams[link].take(request)
                    self.session.request_sent(link, request, self.now)

    def learn(self, events: list[Event]) -> None:
        """Follow what an owner would hold by the events alone."""
        for event in events:
            match event:
                case ResourceUpdate(type_url, name, _, content):
                    assert not content.endswith(b"bad"), "a refused resource was announced"
                    assert self.good.get((type_url, name)) != content, "announced without a change"
                    self.good[type_url, name] = content
                case ResourceRemoved(type_url, name):
                    assert (type_url, name) in self.good
                    del self.good[type_url, name]
                case ResourceDoesNotExist(type_url, name):
                    assert (type_url, name) not in self.good, "what is there was called missing"

    @rule(type_url=TYPES, name=NAMES)
    def subscribe(self, type_url: str, name: str) -> None:
        self.wanted.setdefault(type_url, set()).add(name)
        self.session.subscribe(type_url, name)
        self.act()

    @rule(type_url=TYPES, name=NAMES)
    def unsubscribe(self, type_url: str, name: str) -> None:
        self.wanted.setdefault(type_url, set()).discard(name)
        self.good.pop((type_url, name), None)
        self.session.unsubscribe(type_url, name)
        self.act()

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), type_url=TYPES, held=st.dictionaries(NAMES, CONTENT), removed=st.sets(NAMES))
    def respond(self, data: st.DataObject, type_url: str, held: dict[str, str], removed: set[str]) -> None:
        link = data.draw(st.sampled_from(sorted(self.streams)))
        stream = self.streams[link]
        self.nonces += 1
        nonce = str(self.nonces)
        was_asked = type_url in stream.names
        before = dict(self.good)
        resources = tuple(
            wire(type_url, name, content, wrapped=True, version=content) for name, content in held.items()
        )
        if was_asked:
            stream.last_nonce[type_url] = nonce
            stream.unanswered.setdefault(type_url, []).append(nonce)
        if stream.delta:
            response = DeltaResponse(type_url, nonce, resources, tuple(sorted(removed - set(held))))
            events = self.session.received(link, response, self.now)
        else:
            removed = set()
            events = self.session.received(link, SotwResponse(type_url, nonce, nonce, resources), self.now)
        self.learn(events)
        for name, content in held.items():
            if was_asked and name in self.wanted.get(type_url, ()):
                kept = before.get((type_url, name)) if content == "bad" else body(name, content)
                assert self.good.get((type_url, name)) == kept, "good ones are used, bad ones leave the last good"
        self.act()
        if link in self.streams and was_asked:
            assert not stream.unanswered[type_url], "every response is answered"
            self._check_answer(stream, type_url, has_bad=self._wants_bad(type_url, held))

    def _wants_bad(self, type_url: str, held: dict[str, str]) -> bool:
        return any(content == "bad" and name in self.wanted.get(type_url, ()) for name, content in held.items())

    def _check_answer(self, stream: OpenedStream, type_url: str, *, has_bad: bool) -> None:
        answer = next(r for r in reversed(stream.requests) if r.type_url == type_url)
        assert (answer.error_detail is not None) == has_bad

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), is_fault=st.booleans())
    def stream_dies(self, data: st.DataObject, is_fault: bool) -> None:
        link = data.draw(st.sampled_from(sorted(self.streams)))
        del self.streams[link]
        self.learn(self.session.stream_ended(link, "UNAVAILABLE", "test", self.now, is_fault=is_fault))
        self.act()

    @rule(seconds=st.floats(0.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.learn(self.session.tick(self.now))
        self.act()

    @invariant()
    def requests_name_exactly_the_subscriptions(self) -> None:
        for stream in getattr(self, "streams", {}).values():
            for type_url, names in self.wanted.items():
                assert stream.names.get(type_url, set()) == names

    @invariant()
    def there_is_a_way_forward(self) -> None:
        if any(getattr(self, "wanted", {}).values()) and not self.streams:
            deadline = self.session.deadline()
            assert deadline is not None
            assert self.now < deadline <= self.now + 30.0


TestXdsClient = XdsClientMachine.TestCase
TestXdsClient.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
