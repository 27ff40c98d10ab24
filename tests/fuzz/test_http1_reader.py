"""Any response bytes, cut anywhere, give a response or a protocol error: no other exception, and always an end."""

from itertools import pairwise
from pathlib import Path

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshlib.http.wire.reader import ReaderLimits, ReadError, ResponseReader

SEEDS = sorted((Path(__file__).parent / "http1_corpus").glob("*.http"))
LIMITS = ReaderLimits(max_head_bytes=2000, max_headers=20)

TOKENS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n", b"HTTP/1.1 204 X\r\n",
    b"HTTP/1.1 101 X\r\n", b"Content-Length: ", b"Transfer-Encoding: ", b"Connection: ", b"chunked", b"close",
    b"keep-alive", b"Upgrade: x\r\n", b"0", b"5", b"a", b"ffffffffffffffff", b"-1", b"\r\n", b"\n", b"\r",
    b"\r\n\r\n", b" ", b"\t", b"\x00", b":", b";", b",", b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n", b"HTTP/",
    b"RTSP/1.0 200 OK\r\n", b"\xff", b"X: y\r\n",
]  # fmt: skip
GRAMMAR = st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join)
SEED_BYTES = st.sampled_from([path.read_bytes() for path in SEEDS])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(SEED_BYTES))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 8))
        data[at : at + cut] = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6)))
    return bytes(data)


ANY = st.one_of(st.binary(max_size=400), GRAMMAR, GRAMMAR.map(lambda tail: TOKENS[0] + tail), mutated())


def outcome(pieces: list[bytes], *, head: bool) -> tuple[object, ...]:
    """What a reader makes of the pieces and the end of the stream, as a value."""
    reader = ResponseReader(LIMITS)
    reader.begin(without_body=head)
    try:
        for piece in pieces:
            reader.feed(piece)
        reusable = reader.complete and reader.reusable
        reader.feed_eof()
    except ReadError as error:
        if not str(error):
            raise
        return ("refused",)
    assert reader.complete
    assert reader.head is not None
    assert 200 <= reader.head.status <= 999
    assert not reader.reusable, "the stream has ended"
    return (
        reader.head.status, reader.head.reason, reader.head.http_version, reader.head.headers, reader.trailers,
        b"".join(iter(reader.body.pop, b"")), reusable,
    )  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(data=ANY, head=st.booleans(), cuts=st.lists(st.integers(0, 400), max_size=8))
@example(data=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", head=True, cuts=[3, 40])
def test_any_bytes_give_a_response_or_a_protocol_error_wherever_they_are_cut(
    data: bytes, head: bool, cuts: list[int]
) -> None:
    whole = outcome([data], head=head)
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(ends)]
    assert outcome(pieces, head=head) == whole
    if len(data) < 200:
        assert outcome([data[at : at + 1] for at in range(len(data))], head=head) == whole


@settings(max_examples=600, deadline=None)
@given(data=st.one_of(GRAMMAR.map(lambda tail: TOKENS[0] + tail), mutated()))
def test_what_we_accept_h11_reads_the_same_way(data: bytes) -> None:
    ours = outcome([data], head=False)
    if ours == ("refused",):
        return  # we may be stricter
    status, _, _, headers, trailers, body, _ = ours
    try:
        theirs = by_h11(data)
    except h11.RemoteProtocolError as error:
        if "illegal" in str(error) or "status" in str(error):
            return  # characters, which do not change where the message ends
        raise
    assert theirs == (status, lowered(headers), lowered(trailers), body)


def by_h11(data: bytes) -> tuple[object, ...]:
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=100_000)
    conn.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(data)
    conn.receive_data(b"")
    response, body = None, b""
    while True:
        event = conn.next_event()
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            return response.status_code, lowered(list(response.headers)), lowered(list(event.headers)), body


def lowered(headers: object) -> list[tuple[bytes, bytes]]:
    assert isinstance(headers, list)
    return [(name.lower(), value.strip(b" \t")) for name, value in headers]


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("head", [False, True])
def test_every_prefix_of_every_seed(path: Path, head: bool) -> None:
    data = path.read_bytes()
    for end in range(len(data) + 1):
        outcome([data[:end]], head=head)
        outcome([data[end:]], head=head)
