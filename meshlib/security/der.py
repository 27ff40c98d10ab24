"""The few things needed of DER (X.690): walking nested values. Total: any bytes give values or a DerError."""

from __future__ import annotations

from collections.abc import Iterator

_LONG = 0x80
_MAX_LENGTH_BYTES = 4


class DerError(ValueError):
    """The bytes are not the DER that belongs here."""


class Der:
    """One value: its tag and where its content lies in `data`."""

    __slots__ = ("data", "end", "start", "tag")

    def __init__(self, data: bytes, tag: int, start: int, end: int) -> None:
        self.data, self.tag, self.start, self.end = data, tag, start, end

    @classmethod
    def read(cls, data: bytes) -> Der:
        """The one value the bytes hold."""
        value = _value(data, 0, len(data))
        if value.end != len(data):
            raise DerError("something follows the value")
        return value

    @property
    def content(self) -> bytes:
        """The bytes inside."""
        return self.data[self.start : self.end]

    def expect(self, tag: int) -> Der:
        """Itself, if it has that tag; else DerError."""
        if self.tag != tag:
            raise DerError(f"tag {self.tag:#x} where {tag:#x} belongs")
        return self

    def children(self) -> Iterator[Der]:
        """The values inside."""
        at = self.start
        while at < self.end:
            child = _value(self.data, at, self.end)
            yield child
            at = child.end


def _value(data: bytes, at: int, end: int) -> Der:
    if at + 2 > end:
        raise DerError("cut short")
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= _LONG:
        count = length - _LONG
        if not 1 <= count <= _MAX_LENGTH_BYTES or start + count > end:
            raise DerError("length out of bounds")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > end:
        raise DerError("cut short")
    return Der(data, tag, start, start + length)
