"""A stream of requests that can be sent again, as long as little enough of it has been sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from meshlib.engine.commands import Mirror

Send = Callable[[Sequence[bytes]], None]
log = logging.getLogger("meshlib")
REPLAY_LIMIT = 256 * 1024
"""Bytes of requests kept for another attempt; a stream that is longer is committed (gRFC A6 buffers as much)."""
UNSERIALIZABLE: Any = object()
"""What a request is that could not be serialized."""


def wire_bytes(item: Any) -> bytes:
    """The serializer of sub-channels: what they are given is serialized already, or could not be."""
    if item is UNSERIALIZABLE:
        raise ValueError("the request could not be serialized")
    data: bytes = item
    return data


def serialized(request: Any, serializer: Any) -> Any:
    """The bytes of a request; a serializer that fails is grpcio's to report, as it always does."""
    if serializer is None:
        return request
    try:
        data = serializer(request)
    except Exception:
        log.exception("the serializer of a request stream raised")
        return UNSERIALIZABLE
    return UNSERIALIZABLE if data is None else data


class Kept:
    """What of a request stream has been sent and is kept to be sent again. True while that is all of it."""

    __slots__ = ("_keeping", "_size", "items")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._size = 0
        self._keeping = True

    def __bool__(self) -> bool:
        return self._keeping

    def add(self, item: Any) -> None:
        """One more was sent."""
        if not self._keeping:
            return
        self.items.append(item)
        self._size += len(item) if isinstance(item, bytes | bytearray) else 0
        if self._size > REPLAY_LIMIT:
            self.drop()

    def drop(self) -> None:
        """Nothing will be sent again: too long, or committed."""
        self._keeping = False
        self.items = []


class Copies:
    """Copies of a stream that wait for its end. What is sent is kept for them, up to the first one's limit."""

    __slots__ = ("_items", "_mirrors", "_size")

    def __init__(self) -> None:
        self._items: list[bytes] = []
        self._mirrors: list[tuple[Mirror, Send]] = []
        self._size = 0

    def add(self, mirror: Mirror, send: Send) -> None:
        """One more copy."""
        self._mirrors.append((mirror, send))

    def keep(self, item: Any) -> None:
        """One more request of the stream."""
        if not self._mirrors:
            return
        self._items.append(item)
        self._size += len(item) if isinstance(item, bytes | bytearray) else 0
        if item is UNSERIALIZABLE or self._size > self._mirrors[0][0].body_limit:
            self._mirrors[0][0].abandon()
            self._mirrors, self._items = [], []

    def complete(self) -> None:
        """That was the last request."""
        mirrors, self._mirrors = self._mirrors, []
        items, self._items = self._items, []
        for _, send in mirrors:
            send(items)


class RequestStream:
    """The caller's iterator, read by one attempt after the other. True while the stream can be sent again."""

    def __init__(self, requests: Iterator[Any], serializer: Any) -> None:
        self.given = requests
        self._requests = iter(requests)
        self._serializer = serializer
        self._kept = Kept()
        self._pulled: Any = None  # an item a former attempt waited for and got too late to send
        self._ended = False
        self._attempt: object = None
        self.copies = Copies()
        # Held while the caller's iterator makes the next request: an iterator is nobody's to run twice at once, and the
        # next attempt wants the very request that the last one is still waiting for.
        self._turn = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._kept)

    def commit(self) -> None:
        """There will be no other attempt."""
        self._kept.drop()

    def attempt(self) -> Iterator[Any]:
        """The requests for a new attempt, from the first; the iterators of former attempts end."""
        attempt = self._attempt = object()
        return self._iterate(attempt)

    def _iterate(self, attempt: object) -> Iterator[Any]:
        kept, position = self._kept.items, 0
        while self._attempt is attempt:
            if position < len(kept):
                item = kept[position]
            else:
                with self._turn:
                    # A former attempt may have sent one more while this one waited for its turn.
                    item = kept[position] if position < len(kept) else self._next(attempt)
                if item is None:
                    return
            position += 1
            yield item

    def _next(self, attempt: object) -> Any:
        """The next item, or None: there is none, or it is the next attempt's."""
        if self._attempt is not attempt:
            return None
        item, self._pulled = self._pulled, None
        if item is None:
            if self._ended:
                return None
            try:
                item = serialized(next(self._requests), self._serializer)
            except StopIteration:
                self._ended = True
                self.copies.complete()
                return None
            if self._attempt is not attempt:
                self._pulled = item
                return None
        self._kept.add(item)
        self.copies.keep(item)
        return item
