"""The pure pieces of the gRPC door: targets, metadata, requests kept for a retry, errors."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest
from grpc import aio

import meshlib
from meshlib.context import NO_CONTEXT, CallContext, call_metadata
from meshlib.engine.commands import CallInfo, Fail, Reply
from meshlib.engine.decision import EXPECTED_TIMEOUT
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.grpc.errors import cancelled_error, exception_for, reply_exception
from meshlib.grpc.inbound import peer_of
from meshlib.grpc.metadata import CHANNEL_ID, CONTENT_TYPE, head_of, metadata_of, new_channel, received
from meshlib.grpc.requests import REPLAY_LIMIT, RequestStream, wire_bytes
from meshlib.grpc.subchannels import SubChannel
from meshlib.grpc.target import authority_of, dialled
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.route import HashPolicy
from meshlib.routing.hashing import compile_hash


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        ("payments", "payments"),
        ("payments:443", "payments:443"),
        ("xds:///payments", "payments"),
        ("xds:payments:80", "payments:80"),
        ("dns:///payments:443", "payments:443"),
        ("dns://8.8.8.8/payments", "payments"),
        ("ipv4:10.0.0.1:80", "10.0.0.1:80"),
        ("dns:8080", "dns:8080"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_authority_of_a_target(target: str, authority: str) -> None:
    assert authority_of(target) == authority


@pytest.mark.parametrize(
    ("where", "target"),
    [
        (("10.0.0.1", 80), "ipv4:10.0.0.1:80"),
        (("::1", 80), "ipv6:[::1]:80"),
        (("payments.svc", 80), "dns:///payments.svc:80"),
        (("1.2.3.400", 80), "dns:///1.2.3.400:80"),
        (("", 0, "/run/a.sock"), "unix:/run/a.sock"),
    ],
)
def test_an_endpoint_as_a_target(where: tuple[Any, ...], target: str) -> None:
    assert dialled(*where) == target


def test_metadata_and_back() -> None:
    given = (("x-tenant", "blue"), ("token-bin", b"\x00\xff"), ("x-tenant", "green"))
    head, binary = head_of("payments", "/a/B", given, NO_CONTEXT)
    assert (head.method, head.get("content-type"), head.get("x-tenant")) == ("POST", "application/grpc", "blue,green")
    assert head.get("token-bin") is None
    assert metadata_of(head.headers, binary) == (
        ("x-tenant", "blue"),
        ("x-tenant", "green"),
        ("token-bin", b"\x00\xff"),
    )


def test_a_call_without_metadata_sends_none() -> None:
    head, binary = head_of("payments", "/a/B", None, NO_CONTEXT)
    assert metadata_of(head.headers, binary) == ()
    assert metadata_of([CONTENT_TYPE, (EXPECTED_TIMEOUT, b"15000")], binary) == ()


def test_what_grpcio_writes_itself_is_left_out() -> None:
    headers = [CONTENT_TYPE, (b"Host", b"x"), (b"te", b"trailers"), (b":path", b"/"), (b"X-Kept", b"1")]
    assert metadata_of(headers, ()) == (("x-kept", "1"),)


def test_pseudo_headers_match_nothing() -> None:
    head, _ = head_of("payments", "/a/B", None, NO_CONTEXT)
    assert [head.get_all(name) for name in (":method", ":path", ":authority", ":scheme")] == [[], [], [], []]


def test_the_context_adds_what_the_call_has_not() -> None:
    context = CallContext(headers=((b"traceparent", b"theirs"), (b"x-request-id", b"1")))
    head, _ = head_of("payments", "/a/B", (("traceparent", "mine"),), context)
    assert (head.get("traceparent"), head.get("x-request-id")) == ("mine", "1")


@pytest.mark.parametrize("streams", [False, True])
def test_a_stream_of_requests_says_so(streams: bool) -> None:
    assert head_of("payments", "/a/B", None, NO_CONTEXT, streams)[0].streams is streams
    assert head_of("payments", "/a/B", (("a", "b"),), NO_CONTEXT, streams)[0].streams is streams


def test_received_metadata_are_headers() -> None:
    assert received((("a", "1"), ("b-bin", b"\x02")), None, (("c", "3"),)) == [
        (b"a", b"1"),
        (b"b-bin", b"\x02"),
        (b"c", b"3"),
    ]


def test_requests_are_given_to_each_attempt_from_the_first() -> None:
    requests = RequestStream(iter([b"1", b"2", b"3"]), None)
    first = requests.attempt()
    assert [next(first), next(first)] == [b"1", b"2"]
    second = requests.attempt()
    assert list(second) == [b"1", b"2", b"3"]
    assert list(first) == []
    assert requests


def test_requests_are_serialized_once() -> None:
    made: list[str] = []
    requests = RequestStream(iter(["a"]), lambda text: made.append(text) or text.encode())
    assert [list(requests.attempt()), list(requests.attempt())] == [[b"a"], [b"a"]]
    assert made == ["a"]


def test_a_long_stream_is_not_kept() -> None:
    requests = RequestStream(iter([b"x" * REPLAY_LIMIT, b"y", b"z"]), None)
    attempt = requests.attempt()
    assert len(next(attempt)) == REPLAY_LIMIT
    assert requests
    assert next(attempt) == b"y"
    assert not requests
    assert list(attempt) == [b"z"]


def test_a_committed_stream_keeps_nothing_and_goes_on() -> None:
    requests = RequestStream(iter([b"1", b"2", b"3"]), None)
    attempt = requests.attempt()
    next(attempt)
    requests.commit()
    assert not requests
    assert list(attempt) == [b"2", b"3"]


def test_a_request_an_old_attempt_waited_for_goes_to_the_next() -> None:
    replaced: list[Any] = []

    def asks() -> Any:
        yield b"1"
        replaced.append(requests.attempt())  # while the first attempt waits in here
        yield b"2"

    requests = RequestStream(asks(), None)
    first = requests.attempt()
    assert list(first) == [b"1"]
    assert list(replaced[0]) == [b"1", b"2"]


def test_what_cannot_be_serialized_is_grpcios_to_report() -> None:
    def refuse(request: Any) -> bytes:
        raise TypeError(request)

    (item,) = RequestStream(iter(["a"]), refuse).attempt()
    with pytest.raises(ValueError, match="serialized"):
        wire_bytes(item)


def test_a_drained_sub_channel_closes_with_its_last_call() -> None:
    closed: list[str] = []
    subchannel = SubChannel("channel", closed.append)
    assert subchannel.enter("one")
    assert subchannel.enter("two")
    subchannel.drain()
    assert not subchannel.enter("three")
    subchannel.leave("one")
    assert closed == []
    subchannel.leave("two")
    subchannel.leave("two")
    assert (closed, subchannel.closed) == (["channel"], True)


@pytest.mark.parametrize(
    ("flag", "expected", "code"),
    [
        (ResponseFlag.NR, meshlib.NoRouteError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.NFCF, meshlib.NoRouteError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.NC, meshlib.ClusterNotFoundError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.UH, meshlib.NoHealthyUpstreamError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.UO, meshlib.UpstreamOverflowError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.UF, meshlib.UpstreamConnectError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.UC, meshlib.UpstreamResetError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.UT, meshlib.UpstreamTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
        (ResponseFlag.SI, meshlib.UpstreamTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
        (ResponseFlag.RL, meshlib.RateLimitedError, grpc.StatusCode.UNAVAILABLE),
        (ResponseFlag.DO, meshlib.CallError, grpc.StatusCode.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("library", ["grpc", "aio"])
def test_a_failed_call_is_ours_and_grpcs(flag: ResponseFlag, expected: Any, code: Any, library: Any) -> None:
    error = exception_for(Fail(CallFailure(flag, "because", "r", "c", "e", 2)), library)
    assert isinstance(error, expected)
    assert isinstance(error, aio.AioRpcError if library == "aio" else grpc.RpcError)
    assert (error.code(), error.flag, error.failure.attempts) == (code, flag, 2)
    assert "because" in error.details()
    assert dict(error.trailing_metadata()) == ({"x-envoy-overloaded": "true"} if flag == "UO" else {})
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301  what we pickled ourselves
    assert (type(restored), str(restored), restored.code()) == (type(error), str(error), code)


def test_an_open_circuit_has_its_own_class() -> None:
    error = exception_for(Fail(CallFailure(ResponseFlag.UO, "open", circuit_open=True)), "grpc")
    assert isinstance(error, meshlib.CircuitOpenError)


def test_the_status_of_the_last_attempt_is_the_calls() -> None:
    reset = Outcome(failure=Failure.RESET, grpc_status=8)
    error = exception_for(Fail(CallFailure(ResponseFlag.UC, "reset"), reset), "grpc")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_failed_call_is_a_finished_call_and_future() -> None:
    error = exception_for(Fail(CallFailure(ResponseFlag.UH, "nobody")), "grpc")
    told: list[Any] = []
    error.add_done_callback(told.append)
    assert told == [error]
    assert (error.done(), error.running(), error.cancelled(), error.cancel()) == (True, False, False, False)
    assert error.exception() is error
    assert not error.is_active()
    with pytest.raises(meshlib.NoHealthyUpstreamError):
        error.result()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, "UNKNOWN"),
        (301, "UNKNOWN"),
        (400, "INTERNAL"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "UNIMPLEMENTED"),
        (429, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("library", ["grpc", "aio"])
def test_an_answer_of_the_routes_own(status: int, code: str, library: Any) -> None:
    error = reply_exception(Reply(status, [(b"X-Why", b"so")], b"no", CallInfo()), library)
    assert (error.code().name, error.details(), dict(error.initial_metadata())) == (code, "no", {"x-why": "so"})
    assert not isinstance(error, meshlib.MeshError)


def test_a_rate_limit_may_say_resource_exhausted() -> None:
    limited = Reply(429, [], b"local_rate_limited", CallInfo(flag=ResponseFlag.RL), grpc_status=8)
    error = reply_exception(limited, "grpc")
    assert isinstance(error, meshlib.RateLimitedError)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_a_cancelled_call() -> None:
    assert cancelled_error("grpc").code() is grpc.StatusCode.CANCELLED
    assert cancelled_error("aio").code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize(
    ("uris", "peer"),
    [
        ((b"spiffe://demo.test/ns/shop/sa/me",), "spiffe://demo.test/ns/shop/sa/me"),
        ((), ""),
        ((b"spiffe://demo.test/a", b"spiffe://demo.test/b"), ""),
        ((b"https://demo.test/a",), ""),
        ((b"spiffe://DEMO.test/a",), ""),
        ((b"spiffe://demo.test/a/../admin",), ""),
        ((b"spiffe://demo.test/a%2f..%2fadmin",), ""),
        ((b"spiffe://demo.test/a\r\nadmin",), ""),
        ((b"spiffe://demo.test/\xe9",), ""),
        ((b"spiffe://",), ""),
    ],
)
def test_the_caller_by_grpcios_own_tls_is_an_id_to_the_letter(uris: tuple[bytes, ...], peer: str) -> None:
    assert peer_of({"peer_uri": uris}) == peer


def test_a_channel_is_told_by_its_own_object_of_filter_state() -> None:
    hasher = compile_hash([HashPolicy("filter_state", CHANNEL_ID)])
    assert hasher is not None
    channels = [new_channel() for _ in range(3)]
    made = []
    for channel in channels:
        heads = [
            head_of("payments", "/a/B", metadata, NO_CONTEXT, streams, responses, channel)[0]
            for metadata in ((), (("a", "b"),))
            for streams in (False, True)
            for responses in (False, True)
        ]
        heads += [head.like("/c/D", [(b"a", b"c")]) for head in heads]
        (found,) = {hasher(head) for head in heads}
        made.append(found)
    assert None not in made
    assert len(set(made)) == len(channels)
    with call_metadata(filter_state={CHANNEL_ID: "mine"}):
        head, _ = head_of("payments", "/a/B", None, NO_CONTEXT, channel=channels[0])
        assert head.filter_state == {CHANNEL_ID: "mine"}


@pytest.mark.parametrize("responses", [False, True])
def test_a_shared_head_that_is_changed_is_no_longer_shared(responses: bool) -> None:
    head, _ = head_of("payments", "/a/B", None, NO_CONTEXT, responses=responses)
    made = head.like(head.path, [(b"a", b"c")])
    assert head.shared
    assert not made.shared
    assert (made.overlaps, made.streams, made.protocol) == (not responses, False, "HTTP/2")
