"""What a request asks for its own call in `x-envoy-*` headers: timeouts, retries, hedging (Envoy's router filter).

A value that cannot be read is ignored, as in Envoy; `malformed` finds it for whoever is strict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshlib.model.durations import LONGEST
from meshlib.model.request import RawHeaders
from meshlib.policy.retry import GRPC_WORDS, HTTP_WORDS

_PREFIX = b"x-envoy-"
_SHORTEST = 15  # nearly every other header has a name of 15 letters at most
_MAX_DIGITS = 18

TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
PER_TRY_TIMEOUT = "x-envoy-upstream-rq-per-try-timeout-ms"
DURATION = "x-envoy-upstream-stream-duration-ms"
EXPECTED_TIMEOUT = "x-envoy-expected-rq-timeout-ms"
ALTERNATIVE = "x-envoy-upstream-rq-timeout-alt-response"
HEDGE = "x-envoy-hedge-on-per-try-timeout"
RETRY_ON = "x-envoy-retry-on"
RETRY_GRPC_ON = "x-envoy-retry-grpc-on"
MAX_RETRIES = "x-envoy-max-retries"
STATUS_CODES = "x-envoy-retriable-status-codes"
HEADER_NAMES = "x-envoy-retriable-header-names"

CONSUMED = frozenset(
    name.encode()
    for name in (
        TIMEOUT,
        PER_TRY_TIMEOUT,
        DURATION,
        EXPECTED_TIMEOUT,
        ALTERNATIVE,
        HEDGE,
        RETRY_ON,
        RETRY_GRPC_ON,
        MAX_RETRIES,
        STATUS_CODES,
        HEADER_NAMES,
    )
)
"""The headers that are for the mesh: none of them goes on to the upstream as the caller set it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the headers ask for; None, or empty, where they do not say. Seconds; a timeout of 0 is none at all."""

    timeout: float | None = None
    per_try_timeout: float | None = None
    max_stream_duration: float | None = None
    expected_timeout: float | None = None
    alternative_response: bool = False
    hedge: bool | None = None
    retry_on: tuple[str, ...] = ()
    max_retries: int | None = None
    status_codes: tuple[int, ...] = ()
    header_names: tuple[str, ...] = ()

    @property
    def changes_retries(self) -> bool:
        """Whether the retry policy is not the route's as it stands."""
        return bool(
            self.retry_on
            or self.status_codes
            or self.header_names
            or self.max_retries is not None
            or self.per_try_timeout is not None
        )


def speaks(headers: RawHeaders) -> bool:
    """Whether any header may be one of these; nearly no request has one, and this is all that it pays."""
    for name, _ in headers:  # noqa: SIM110  a generator costs more than the headers
        if len(name) > _SHORTEST and name[:8].lower() == _PREFIX:
            return True
    return False


def consumed(headers: RawHeaders) -> dict[str, str]:
    """The headers for the mesh, by lower-case name; of several with one name the first."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = raw.lower()
        if name in CONSUMED:
            found.setdefault(name.decode(), value.decode("latin-1").strip())
    return found


def without(headers: RawHeaders) -> RawHeaders:
    """The headers that are not for the mesh; the same object when all of them are."""
    kept = [pair for pair in headers if pair[0].lower() not in CONSUMED]
    return headers if len(kept) == len(headers) else kept


def asked(said: Mapping[str, str]) -> Asked:
    """The meaning of `consumed` headers."""
    return Asked(
        timeout=_seconds(said.get(TIMEOUT)),
        per_try_timeout=_seconds(said.get(PER_TRY_TIMEOUT)),
        max_stream_duration=_seconds(said.get(DURATION)),
        expected_timeout=_seconds(said.get(EXPECTED_TIMEOUT)),
        alternative_response=ALTERNATIVE in said,
        hedge={"true": True, "false": False}.get(said.get(HEDGE, "").lower()),
        retry_on=(
            *(word for word in _list(said.get(RETRY_ON)) if word in HTTP_WORDS),
            *(word for word in _list(said.get(RETRY_GRPC_ON)) if word in GRPC_WORDS),
        ),
        max_retries=_number(said.get(MAX_RETRIES)),
        status_codes=tuple(code for word in _list(said.get(STATUS_CODES)) if (code := _number(word)) is not None),
        header_names=tuple(name.lower() for name in _list(said.get(HEADER_NAMES))),
    )


def malformed(said: Mapping[str, str], strict: tuple[str, ...]) -> tuple[str, str] | None:
    """The first of the `strict` headers whose value Envoy would not take, and that value."""
    for name in strict:
        value = said.get(name)
        if value is not None and not _VALID[name](value):
            return name, value
    return None


def _valid_number(value: str) -> bool:
    return _number(value) is not None


_VALID: dict[str, Callable[[str], bool]] = {
    TIMEOUT: _valid_number,
    PER_TRY_TIMEOUT: _valid_number,
    MAX_RETRIES: _valid_number,
    RETRY_ON: lambda value: all(word in HTTP_WORDS | {"http3-post-connect-failure"} for word in _list(value)),
    RETRY_GRPC_ON: lambda value: all(word in GRPC_WORDS for word in _list(value)),
}
CAN_BE_STRICT = frozenset(_VALID)
"""What `strict_check_headers` may name."""


def _seconds(value: str | None) -> float | None:
    number = _number(value)
    return None if number is None else min(number / 1000.0, LONGEST)


def _number(value: str | None) -> int | None:
    if value is None:
        return None
    value = value.strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS else None


def _list(value: str | None) -> list[str]:
    return [word for part in (value or "").split(",") if (word := part.strip())]
