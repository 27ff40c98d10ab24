"""The conditions of `retry_on`, as the decoder takes them."""

from __future__ import annotations

from meshlib.sources.xds.decode.retry import RETRY_ON
from tables import markdown

MEANING = {
    "5xx": "a response from 500 to 599, or no response at all (reset, no connection, timeout of a try)",
    "gateway-error": "a response of 502, 503 or 504, or no response",
    "reset": "the connection broke before a response",
    "reset-before-request": "it broke before any byte of the request was sent",
    "connect-failure": "no connection: refused, unreachable, TLS, connect timeout",
    "refused-stream": "the peer said it has not begun the request (HTTP/2; never on HTTP/1.1)",
    "retriable-4xx": "a response of 409",
    "retriable-status-codes": "a response whose status is in `retriable_status_codes`",
    "retriable-headers": "a response with a header that one of `retriable_headers` matches",
    "envoy-ratelimited": "a response with `x-envoy-ratelimited`, which nothing else retries",
    "cancelled": "a response with `grpc-status` 1",
    "deadline-exceeded": "a response with `grpc-status` 4",
    "internal": "a response with `grpc-status` 13",
    "resource-exhausted": "a response with `grpc-status` 8",
    "unavailable": "a response with `grpc-status` 14",
}


def table() -> str:
    """A row per condition."""
    markdown.complete("retry_on", RETRY_ON, MEANING)
    return markdown.table(("condition", "asks for another attempt after"), [(f"`{k}`", v) for k, v in MEANING.items()])
