"""Frames of HTTP/2, found in bytes that come in any pieces."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from meshlib.grpc.tunnel.frames import PREFACE, FrameFilter, goaway

HEADERS, DATA, SETTINGS, CONTINUATION = 1, 0, 4, 9


@dataclass(frozen=True)
class Frame:
    kind: int
    stream: int
    payload: bytes

    def encoded(self) -> bytes:
        head = len(self.payload).to_bytes(3, "big") + bytes((self.kind, 0)) + self.stream.to_bytes(4, "big")
        return head + self.payload


_frames = st.lists(
    st.builds(
        Frame, st.sampled_from([HEADERS, DATA, SETTINGS, CONTINUATION]), st.integers(0, 9), st.binary(max_size=20)
    ),
    max_size=12,
)
_cuts = st.lists(st.integers(1, 25), min_size=1, max_size=40)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The bytes in pieces of these sizes, over and over."""
    cut, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        cut.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return cut


def encoded(frames: list[Frame]) -> bytes:
    return b"".join(frame.encoded() for frame in frames)


@given(_frames, _cuts)
def test_everything_goes_through_as_it_came(frames: list[Frame], sizes: list[int]) -> None:
    filtered = FrameFilter(len(PREFACE))
    data = PREFACE + encoded(frames)
    assert b"".join(map(filtered.feed, pieces(data, sizes))) == data
    assert filtered.last_stream == max((frame.stream for frame in frames if frame.kind == HEADERS), default=0)


@given(_frames, _frames, _cuts)
def test_refused_streams_leave_no_trace(before: list[Frame], after: list[Frame], sizes: list[int]) -> None:
    filtered = FrameFilter()
    assert filtered.feed(encoded(before)) == encoded(before)
    newest = filtered.last_stream
    filtered.refuse_new()
    kept = [frame for frame in after if frame.stream <= newest]
    assert b"".join(map(filtered.feed, pieces(encoded(after), sizes))) == encoded(kept)


@given(_frames, _cuts, st.integers(0, 300))
def test_an_insertion_stands_between_two_frames_and_never_first(
    frames: list[Frame], sizes: list[int], moment: int
) -> None:
    filtered, out, fed = FrameFilter(), b"", 0
    asked = False
    for piece in pieces(encoded(frames), sizes):
        if fed >= moment and not asked:
            asked, filtered.insert = True, goaway(7)
            out += filtered.between()
        out += filtered.feed(piece)
        fed += len(piece)
    out += filtered.between()
    places, at = [encoded(frames)], 0
    for frame in frames:
        at += len(frame.encoded())
        places.append(encoded(frames)[:at] + goaway(7) + encoded(frames)[at:])
    assert out in places
    if asked and frames:
        assert out != encoded(frames), "it is inserted at the latest after the last frame"


def test_a_goaway_says_which_streams_were_not_looked_at() -> None:
    assert goaway(0x01020304) == bytes.fromhex("000008 07 00 00000000 01020304 00000000")
