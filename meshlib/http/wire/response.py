"""What every response of the wire says of itself, whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from meshlib.http.wire.reader import ResponseHead
from meshlib.http.wire.types import Headers, WireError

OnDone = Callable[[WireError | None], None]


class WireResponse:
    """The head of a response, and how its exchange ended."""

    __slots__ = ("_error", "_head", "_on_done", "_over")

    def __init__(self) -> None:
        self._head: ResponseHead | None = None
        self._error: WireError | None = None
        self._on_done: OnDone | None = None
        self._over = False

    @property
    def head(self) -> ResponseHead:
        """Status, reason, version and headers at once."""
        return cast(ResponseHead, self._head)  # send() returns it only with one

    @property
    def status(self) -> int:
        """Three-digit status code, never 1xx."""
        return self.head.status

    @property
    def reason(self) -> bytes:
        """Reason phrase, often empty."""
        return self.head.reason

    @property
    def http_version(self) -> bytes:
        """b"HTTP/1.1" or b"HTTP/1.0"."""
        return self.head.http_version

    @property
    def headers(self) -> Headers:
        """Header lines in the order received, names as received."""
        return self.head.headers

    @property
    def on_done(self) -> OnDone | None:
        """Called once: None when the body ended or was closed early, the error when it failed. It must not raise.

        Set after the end (a small body ends before `send` returns), it is called at once.
        """
        return self._on_done

    @on_done.setter
    def on_done(self, callback: OnDone | None) -> None:
        self._on_done = callback
        if self._over and callback is not None:
            callback(self._error)
