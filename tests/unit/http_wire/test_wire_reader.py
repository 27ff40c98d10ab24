"""The response reader, byte by byte and without a socket."""

import pytest

from meshlib.http.wire.reader import ReaderLimits, ReadError, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, step: int = 0, head: bool = False, eof: bool = False) -> ResponseReader:
    reader = ResponseReader(ReaderLimits())
    reader.begin(without_body=head)
    for at in range(0, len(data), step or len(data) or 1):
        reader.feed(data[at : at + (step or len(data))])
    if eof:
        reader.feed_eof()
    return reader


def body(reader: ResponseReader) -> bytes:
    return b"".join(iter(reader.body.pop, b""))


STEPS = pytest.mark.parametrize("step", [0, 1, 2, 7])


@STEPS
@pytest.mark.parametrize(
    "raw, expected",
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length: 0\r\n\r\n", b""),
        (OK + b"CONTENT-LENGTH:   00005  \r\n\r\nhello", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\n\r\n", b"hello!"),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 599 \r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_framed_responses_end_by_themselves_and_leave_the_connection_reusable(
    raw: bytes, expected: bytes, step: int
) -> None:
    reader = read(raw, step=step)
    assert reader.complete
    assert reader.reusable
    assert body(reader) == expected


@STEPS
def test_head_is_given_as_received(step: int) -> None:
    reader = read(
        b"HTTP/1.1 404 Not  Found\r\nX-A: 1\r\nx-a:  two words \r\nEmpty:\r\nL: \xe9\r\nContent-Length: 0\r\n\r\n",
        step=step,
    )
    assert reader.head is not None
    assert (reader.head.status, reader.head.reason, reader.head.http_version) == (404, b"Not  Found", b"HTTP/1.1")
    names = [name for name, _ in reader.head.headers]
    assert names == [b"X-A", b"x-a", b"Empty", b"L", b"Content-Length"]
    assert [value.strip() for _, value in reader.head.headers] == [b"1", b"two words", b"", b"\xe9", b"0"]


@STEPS
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_body_without_length_ends_with_the_connection(version: bytes, step: int) -> None:
    raw = version + b" 200 OK\r\n\r\n" + b"x" * 100
    assert not read(raw, step=step).complete
    reader = read(raw, step=step, eof=True)
    assert reader.complete
    assert not reader.reusable
    assert body(reader) == b"x" * 100


@STEPS
@pytest.mark.parametrize("framing", [b"Content-Length: 500\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_a_response_to_head_has_no_body(framing: bytes, step: int) -> None:
    reader = read(OK + framing + b"\r\n", step=step, head=True)
    assert reader.complete
    assert reader.reusable
    assert body(reader) == b""


@STEPS
def test_after_a_head_response_the_next_one_is_read(step: int) -> None:
    reader = read(OK + b"Content-Length: 500\r\n\r\n", step=step, head=True)
    reader.begin(without_body=False)
    reader.feed(OK + b"Content-Length: 2\r\n\r\nok")
    assert reader.complete
    assert body(reader) == b"ok"


@STEPS
def test_a_body_sent_in_answer_to_head_is_not_a_body_and_ends_the_connection(step: int) -> None:
    reader = read(OK + b"Content-Length: 2\r\n\r\nok", step=step, head=True)
    assert reader.complete
    assert not reader.reusable
    assert body(reader) == b""


@STEPS
@pytest.mark.parametrize("status", [100, 102, 103])
def test_informational_responses_are_skipped(status: int, step: int) -> None:
    reader = read(b"HTTP/1.1 %d X\r\nLink: a\r\n\r\n" % status * 3 + OK + b"Content-Length: 2\r\n\r\nok", step=step)
    assert reader.complete
    assert reader.reusable
    assert reader.head is not None
    assert reader.head.headers == [(b"Content-Length", b"2")]


@STEPS
def test_trailers_are_kept_apart_from_headers(step: int) -> None:
    reader = read(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nGrpc-Status: 0\r\nA: b\r\n\r\n", step=step)
    assert reader.complete
    assert reader.trailers == [(b"Grpc-Status", b"0"), (b"A", b"b")]
    assert reader.head is not None
    assert len(reader.head.headers) == 1


@STEPS
@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_the_server_will_close_is_not_reused(raw: bytes, step: int) -> None:
    reader = read(raw, step=step)
    assert reader.complete
    assert not reader.reusable
    assert body(reader) == b"ok"


def test_http_1_0_with_keep_alive_is_reused() -> None:
    assert read(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").reusable


@STEPS
@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"\x00", b"x" * 10])
@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_bytes_behind_a_response_are_dropped_with_the_connection(raw: bytes, surplus: bytes, step: int) -> None:
    reader = read(raw + surplus, step=step)
    assert reader.complete
    assert not reader.reusable
    assert body(reader) == b"ok"
    assert len(reader.trailers) <= 1
    assert reader.head is not None
    assert reader.head.status == 200


@STEPS
@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Content-Length: 2, 2\r\n\r\nok",
        OK + b"Content-Length: +2\r\n\r\nok",
        OK + b"Content-Length: -2\r\n\r\nok",
        OK + b"Content-Length: 0x2\r\n\r\nok",
        OK + b"Content-Length: 2 2\r\n\r\nok",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, identity\r\n\r\nok",
        OK + b"Transfer-Encoding: gzip\r\n\r\nok",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nok\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        OK + b"Content-Length: 2\n\nok",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"A : b\r\n\r\n",
        OK + b": b\r\n\r\n",
        OK + b"A b\r\n\r\n",
        OK + b"A: b\x00c\r\n\r\n",
        OK + b"A: b\rc\r\n\r\n",
        OK + b"\xe9: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 20 X\r\n\r\n",
        b"HTTP/1.1 2000 X\r\n\r\n",
        b"HTTP/1.1  200 X\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"<html>",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, step: int) -> None:
    with pytest.raises(ReadError):
        read(raw, step=step, eof=True)


@STEPS
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP",
        b"HTTP/1.1 200 O",
        OK,
        OK + b"Content-Length: 2\r\n",
        OK + b"Content-Length: 2\r\n\r\no",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\no",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_response_cut_short_is_an_error_not_an_end(raw: bytes, step: int) -> None:
    with pytest.raises(ReadError, match="middle"):
        read(raw, step=step, eof=True)


def test_limits_hold_on_heads_that_are_whole_and_on_those_that_never_end() -> None:
    limits = ReaderLimits(max_head_bytes=1000, max_headers=10)

    def fed(data: bytes, step: int) -> ResponseReader:
        reader = ResponseReader(limits)
        reader.begin(without_body=False)
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
        return reader

    fits = OK + b"A: " + b"x" * 800 + b"\r\nContent-Length: 5000\r\n\r\n" + b"y" * 5000
    assert fed(fits, len(fits)).complete
    assert fed(fits, 100).complete
    for bad in (
        OK + b"A: " + b"x" * 2000 + b"\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: " + b"x" * 2000,
        OK + b"A: b\r\n" * 11 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 X\r\n\r\n" * 100,
        OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 400,
    ):
        with pytest.raises(ReadError):
            fed(bad, 50)
    with pytest.raises(ReadError, match="11 headers"):
        fed(OK + b"A: b\r\n" * 11 + b"\r\n", 10_000)
    with pytest.raises(ReadError, match="trailers"):
        fed(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 11 + b"\r\n", 10_000)


def test_many_small_chunks_are_not_taken_for_overhead() -> None:
    reader = ResponseReader(ReaderLimits(max_head_bytes=200))
    reader.begin(without_body=False)
    reader.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):
        reader.feed(b"1\r\nx\r\n")
    reader.feed(b"0\r\n\r\n")
    assert reader.complete
    assert body(reader) == b"x" * 1000


def test_the_body_of_one_response_is_not_touched_by_the_next() -> None:
    reader = read(OK + b"Content-Length: 3\r\n\r\none")
    first = reader.body
    reader.begin(without_body=False)
    reader.feed(OK + b"Content-Length: 3\r\n\r\ntwo")
    assert first.pop() == b"one"
    assert body(reader) == b"two"


def test_after_any_kind_of_body_the_next_response_is_read() -> None:
    reader = ResponseReader(ReaderLimits())
    for _ in range(2):
        for raw in (
            OK + b"Content-Length: 3\r\n\r\nabc",
            OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ):
            for step in (1, 30, 1000):
                reader.begin(without_body=False)
                for at in range(0, len(raw), step):
                    reader.feed(raw[at : at + step])
                assert reader.complete
                assert reader.reusable
                assert body(reader) == b"abc"


def test_a_large_body_of_known_length_is_passed_on_without_a_copy() -> None:
    reader = read(OK + b"Content-Length: 300000\r\n\r\n")
    piece = b"x" * 100_000
    reader.feed(piece)
    assert reader.body.pop() is piece
