"""W3C trace context and request ids: read from strangers, handed on to every outgoing call.

Where no span is made, a `traceparent` is handed on unchanged: a new parent id would point at nothing.
Sources: https://www.w3.org/TR/trace-context/ (version 00, forward compatible), Envoy's `x-request-id`.
"""

from __future__ import annotations

import re
from typing import Protocol

# Ids of zeros only are no ids. ASCII digits are named one by one: \d and IGNORECASE know others.
_IDS = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# What later versions add is unknown, yet it goes into headers: printable ASCII, and not without end.
_TRACEPARENT = re.compile(rf"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(?:-[\x21-\x7e]{{0,256}})?")
_MAX_TRACESTATE = 512
_MAX_REQUEST_ID = 128


class Bits(Protocol):
    """A source of random bits (`random.Random`)."""

    def getrandbits(self, k: int, /) -> int:
        """`k` random bits."""


def valid_traceparent(value: str) -> bool:
    """Whether a `traceparent` may be handed on. Versions above 00 may carry more fields; version ff is forbidden."""
    return _TRACEPARENT.fullmatch(value) is not None


def valid_tracestate(value: str) -> bool:
    """Whether a `tracestate` may be handed on: printable ASCII of at most 512 characters."""
    return 0 < len(value) <= _MAX_TRACESTATE and _is_printable(value)


def valid_request_id(value: str) -> bool:
    """Whether a caller's request id may be kept: printable ASCII without spaces, at most 128 characters."""
    return 0 < len(value) <= _MAX_REQUEST_ID and _is_printable(value) and " " not in value


def new_request_id(bits: Bits) -> str:
    """A random UUID (version 4)."""
    digits = f"{bits.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def trace_headers(traceparent: str | None, tracestate: str | None) -> tuple[tuple[bytes, bytes], ...]:
    """The trace headers to hand on. A malformed `traceparent` counts as none, and then its `tracestate` is dropped.

    None is made up for a request that brought none: not being sampled, it would tell services further on, whose
    samplers follow their parent, not to record what follows either.
    """
    if traceparent is None or not valid_traceparent(traceparent):
        return ()
    headers = [(b"traceparent", traceparent.encode("ascii"))]
    if tracestate is not None and valid_tracestate(tracestate):
        headers.append((b"tracestate", tracestate.encode("ascii")))
    return tuple(headers)


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()
