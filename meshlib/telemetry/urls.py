"""URLs as telemetry may show them: without credentials, and without the query values that are secrets.

Source: the OpenTelemetry attribute `url.full` (credentials become `REDACTED:REDACTED`) and its list of signed-URL keys.
"""

from __future__ import annotations

from typing import Literal

QueryPolicy = Literal["sensitive", "redact", "drop", "keep"]
"""What becomes of query values: `sensitive` redacts those of `SENSITIVE` keys, `redact` all, `drop` leaves the query
out, `keep` shows everything.
"""
REDACTED = "REDACTED"
SENSITIVE = frozenset(
    (
        # OpenTelemetry's own list
        *("awsaccesskeyid", "signature", "sig", "x-goog-signature"),
        # what else is a secret wherever it is seen
        *("access_token", "api_key", "apikey", "auth", "authorization", "client_secret", "code", "id_token", "jwt"),
        *("key", "pass", "passwd", "password", "refresh_token", "secret", "session", "token"),
        *("x-amz-credential", "x-amz-security-token", "x-amz-signature"),
    )
)
_MAX = 2048


def full_url(scheme: str, authority: str, target: str, policy: QueryPolicy = "sensitive") -> str:
    """`url.full` of a request; `target` is its path with its query. At most 2048 characters."""
    if "@" in authority:
        authority = f"{REDACTED}:{REDACTED}@{authority.rpartition('@')[2]}"
    if not target.startswith("/"):  # CONNECT, `OPTIONS *`, or a whole URL as target
        return f"{scheme}://{authority}"
    if "?" in target or "#" in target:
        target = _shown(target.partition("#")[0], policy)
    return f"{scheme}://{authority}{target}"[:_MAX]


def shown_query(query: str, policy: QueryPolicy) -> str:
    """`url.query` as it may be shown."""
    if policy == "keep":
        return query
    if policy == "drop":
        return ""
    return "&".join(_redacted(pair, policy) for pair in query.split("&"))


def split_authority(scheme: str, authority: str) -> tuple[str, int | None]:
    """`server.address` and `server.port`; the scheme's own port where none is given, None for a socket's path."""
    host = authority.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5:
        return name.strip("[]"), int(port)
    return host.strip("[]"), 443 if scheme == "https" else 80


def _shown(target: str, policy: QueryPolicy) -> str:
    path, mark, query = target.partition("?")
    shown = shown_query(query, policy)
    return f"{path}{mark}{shown}" if shown else path


def _redacted(pair: str, policy: QueryPolicy) -> str:
    key, equals, _ = pair.partition("=")
    secret = policy == "redact" or key.lower() in SENSITIVE
    return f"{key}={REDACTED}" if equals and secret else pair
