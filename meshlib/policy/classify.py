"""Classification: what one attempt's end means. Made once per attempt; retry, breaker, outlier and stats all read it.

The facts are Envoy's router (`source/common/router`): which retry conditions a response or a reset satisfies, and what
the outlier detector is told. A gRPC status counts as the HTTP status Envoy maps it to. Instances are made at import and
shared, so that the common case allocates nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome


class Condition(enum.IntFlag):
    """The retry conditions an outcome can satisfy by itself; the words are in `CONDITION_WORDS`.

    `retriable-status-codes`, `retriable-headers` and `envoy-ratelimited` are not here: they depend on the policy's own
    list or on a response header, and reading headers is left to policies that ask for it.
    """

    NONE = 0
    FIVE_XX = 1
    GATEWAY_ERROR = 2
    RESET = 4
    RESET_BEFORE_REQUEST = 8
    CONNECT_FAILURE = 16
    REFUSED_STREAM = 32
    RETRIABLE_4XX = 64
    GRPC_CANCELLED = 128
    GRPC_DEADLINE_EXCEEDED = 256
    GRPC_INTERNAL = 512
    GRPC_RESOURCE_EXHAUSTED = 1024
    GRPC_UNAVAILABLE = 2048


CONDITION_WORDS: dict[str, Condition] = {
    # Envoy's order of evaluation within a response and within a reset: the first that holds is the reason reported.
    "connect-failure": Condition.CONNECT_FAILURE,
    "reset-before-request": Condition.RESET_BEFORE_REQUEST,
    "reset": Condition.RESET,
    "5xx": Condition.FIVE_XX,
    "gateway-error": Condition.GATEWAY_ERROR,
    "refused-stream": Condition.REFUSED_STREAM,
    "retriable-4xx": Condition.RETRIABLE_4XX,
    "cancelled": Condition.GRPC_CANCELLED,
    "deadline-exceeded": Condition.GRPC_DEADLINE_EXCEEDED,
    "internal": Condition.GRPC_INTERNAL,
    "resource-exhausted": Condition.GRPC_RESOURCE_EXHAUSTED,
    "unavailable": Condition.GRPC_UNAVAILABLE,
}

GRPC_CONDITIONS: dict[int, Condition] = {
    1: Condition.GRPC_CANCELLED,
    4: Condition.GRPC_DEADLINE_EXCEEDED,
    8: Condition.GRPC_RESOURCE_EXHAUSTED,
    13: Condition.GRPC_INTERNAL,
    14: Condition.GRPC_UNAVAILABLE,
}

# google.rpc codes as HTTP statuses (`Grpc::Utility::grpcToHttpStatus`); what is not listed is 500.
_GRPC_TO_HTTP = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)


@dataclass(frozen=True, slots=True)
class Classification:
    """`success`: a response below 500. `neutral`: says nothing about the endpoint (overflow, the caller's own end);
    then neither `success` nor `counts_as_5xx` holds, and breaker and outlier detection must not count it.

    `counts_as_5xx` is the outlier detector's view without split errors: 5xx responses and local-origin failures.
    `status` is the HTTP status the outcome counts as (a connect failure as 503, a timeout as 504). `connected`: there
    was a connection to the endpoint; False only where that is known.
    """

    success: bool
    conditions: int
    counts_as_5xx: bool
    gateway_error: bool
    local_origin: bool
    neutral: bool
    status: int
    flag: ResponseFlag | None
    connected: bool = True

    def satisfies(self, word: str) -> bool:
        """Whether the outcome satisfies a `retry_on` word by itself."""
        return bool(self.conditions & CONDITION_WORDS.get(word, Condition.NONE))


def _of_status(status: int, extra: Condition = Condition.NONE) -> Classification:
    """A response with this status, as Envoy counts it."""
    is_5xx = 500 <= status <= 599
    gateway = 502 <= status <= 504
    conditions = extra
    if is_5xx:
        conditions |= Condition.FIVE_XX
    if gateway:
        conditions |= Condition.GATEWAY_ERROR
    if status == 409:
        conditions |= Condition.RETRIABLE_4XX
    return Classification(not is_5xx, int(conditions), is_5xx, gateway, False, False, status, None)


def _of_grpc(http_status: int, grpc_status: int) -> Classification:
    """A response with a gRPC status: retry sees the HTTP status and the code, the detectors the code as HTTP."""
    by_http = _of_status(http_status, GRPC_CONDITIONS.get(grpc_status, Condition.NONE))
    mapped = _GRPC_TO_HTTP[grpc_status] if 0 <= grpc_status < len(_GRPC_TO_HTTP) else 500
    seen = _of_status(mapped)
    return Classification(
        seen.success, by_http.conditions, seen.counts_as_5xx, seen.gateway_error, False, False, mapped, None
    )


# A reset, of whatever kind, would end as a 5xx for the caller: Envoy lets `5xx` and `gateway-error` retry it.
_ANY_RESET = Condition.RESET | Condition.FIVE_XX | Condition.GATEWAY_ERROR
_FAILURES: dict[Failure, tuple[Condition, int, ResponseFlag]] = {
    Failure.CONNECT: (_ANY_RESET | Condition.CONNECT_FAILURE, 503, ResponseFlag.UF),
    Failure.CONNECT_TIMEOUT: (_ANY_RESET | Condition.CONNECT_FAILURE, 503, ResponseFlag.UF),
    Failure.RESET_BEFORE_REQUEST: (_ANY_RESET, 503, ResponseFlag.UC),
    Failure.RESET: (_ANY_RESET, 503, ResponseFlag.UC),
    Failure.REFUSED_STREAM: (_ANY_RESET | Condition.REFUSED_STREAM, 503, ResponseFlag.UR),
    Failure.PROTOCOL: (_ANY_RESET, 502, ResponseFlag.UPE),
    Failure.PER_TRY_TIMEOUT: (_ANY_RESET, 504, ResponseFlag.UT),
    Failure.TIMEOUT: (Condition.NONE, 504, ResponseFlag.UT),  # never retried: there is no time left
    Failure.IDLE: (Condition.NONE, 504, ResponseFlag.SI),  # the stream's end, in Envoy too
    Failure.POOL_TIMEOUT: (Condition.NONE, 504, ResponseFlag.UT),
    Failure.OVERFLOW: (Condition.NONE, 503, ResponseFlag.UO),  # never retried: it would add to the overflow
    Failure.LOCAL: (Condition.NONE, 499, ResponseFlag.DC),
    Failure.NESTED: (Condition.NONE, 500, ResponseFlag.LR),
}
_NEVER_SENT = frozenset({Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.RESET_BEFORE_REQUEST})
_NEVER_CONNECTED = frozenset({Failure.CONNECT, Failure.CONNECT_TIMEOUT})
_MAYBE_CONNECTING = frozenset({Failure.PER_TRY_TIMEOUT, Failure.TIMEOUT, Failure.IDLE})
_NEUTRAL = frozenset({Failure.POOL_TIMEOUT, Failure.OVERFLOW, Failure.LOCAL, Failure.NESTED})


def _of_failure(failure: Failure, sent: bool, grpc_status: int = 0) -> Classification:
    conditions, status, flag = _FAILURES[failure]
    # To a gRPC client a broken connection is a status too, which gRPC's words retry (gRFC A6).
    conditions |= GRPC_CONDITIONS.get(grpc_status, Condition.NONE)
    if conditions & Condition.RESET and (failure in _NEVER_SENT or not sent):
        conditions |= Condition.RESET_BEFORE_REQUEST
    neutral = failure in _NEUTRAL
    connected = failure not in _NEVER_CONNECTED and (sent or failure not in _MAYBE_CONNECTING)
    blamed = not neutral
    return Classification(False, int(conditions), blamed, blamed, blamed, neutral, status, flag, connected)


_BY_STATUS = tuple(_of_status(status) for status in range(1000))
_BY_GRPC = {(200, code): _of_grpc(200, code) for code in range(len(_GRPC_TO_HTTP))}
# A gRPC stream whose status is still to come: it says nothing yet, about the endpoint or to the retry policy.
PENDING = Classification(True, 0, False, False, False, True, 200, None)
_BY_GRPC[200, GRPC_STATUS_PENDING] = PENDING
_SENT = {failure: _of_failure(failure, True) for failure in Failure}
_UNSENT = {failure: _of_failure(failure, False) for failure in Failure}


def classify(outcome: Outcome) -> Classification:
    """The classification of one attempt's end.

    An outcome with neither status nor failure is a mistake of the adapter and raises ValueError.
    """
    failure = outcome.failure
    if failure is not None:
        if outcome.grpc_status is not None:
            return _of_failure(failure, outcome.request_sent, outcome.grpc_status)
        return (_SENT if outcome.request_sent else _UNSENT)[failure]
    status = outcome.status
    if status is None:
        raise ValueError("an outcome has a status or a failure; this one has neither")
    grpc_status = outcome.grpc_status
    if grpc_status is not None:
        known = _BY_GRPC.get((status, grpc_status))
        return known if known is not None else _of_grpc(status, grpc_status)
    return _BY_STATUS[status] if 0 <= status < 1000 else _of_status(status)
