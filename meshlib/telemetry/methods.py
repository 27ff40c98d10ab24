"""HTTP methods as telemetry may name them: the known ones, because a caller can make up as many as it likes."""

from __future__ import annotations

OTHER = "_OTHER"
KNOWN = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))


def method_name(method: str) -> str:
    """`http.request.method`: `_OTHER` for an unknown one."""
    return method if method in KNOWN else OTHER
