"""Where the frames of an HTTP/2 connection begin (RFC 9113, section 4.1), in one direction; payloads are not read.

Knowing that is enough to end a connection as HTTP/2 wants it: a GOAWAY between two frames, and nothing of the streams
that come after it. The client repeats those elsewhere by itself, because it was told that nobody looked at them.
"""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9
_HEADERS, _GOAWAY = 0x01, 0x07
_STREAM_BITS = 0x7FFFFFFF


class FrameFilter:
    """Lets frames through. `preface`: how many bytes come before the first one.

    `last_stream` is the newest stream that was begun. After `refuse_new` streams begun later are left out. `insert`
    goes between two frames, never before the first (which must be SETTINGS).
    """

    __slots__ = ("_begun", "_keep", "_left", "_limit", "_partial", "insert", "last_stream")

    def __init__(self, preface: int = 0) -> None:
        self.last_stream = 0
        self.insert = b""
        self._left = preface  # of the frame at hand, its header included
        self._keep = True
        self._partial = b""  # of a header
        self._limit: int | None = None
        self._begun = False

    def refuse_new(self) -> None:
        """Leave out every stream begun from now on."""
        self._limit = self.last_stream

    def feed(self, data: bytes) -> bytes:
        """What of these bytes, and of those held back, goes on."""
        data, self._partial = self._partial + data, b""
        out: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                if self.insert and self._begun:
                    out.append(self.between())
                if end - at < _HEADER_BYTES:
                    self._partial = data[at:]
                    break
                self._begin(data, at)
            taken = min(self._left, end - at)
            if self._keep:
                out.append(data[at : at + taken])
            self._left -= taken
            at += taken
        return out[0] if len(out) == 1 else b"".join(out)

    def between(self) -> bytes:
        """What is to be inserted, if this is a place for it; else nothing."""
        if self._left or not self._begun:
            return b""
        inserted, self.insert = self.insert, b""
        return inserted

    def _begin(self, data: bytes, at: int) -> None:
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & _STREAM_BITS
        if data[at + 3] == _HEADERS and stream > self.last_stream:
            self.last_stream = stream
        self._keep = self._limit is None or stream <= self._limit
        self._left = _HEADER_BYTES + int.from_bytes(data[at : at + 3], "big")
        self._begun = True


def goaway(last_stream: int) -> bytes:
    """GOAWAY without an error: streams after `last_stream` were not looked at (RFC 9113, section 6.8)."""
    payload = last_stream.to_bytes(4, "big") + bytes(4)
    return len(payload).to_bytes(3, "big") + bytes((_GOAWAY, 0)) + bytes(4) + payload
