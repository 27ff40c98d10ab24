"""Retry rules: is this outcome worth another attempt? (Envoy's `RetryStateImpl`, condition by condition.)

How often is `num_retries`; when is `backoff`; whether the cluster can bear it is `budget`; whether the body can be
sent again and time is left is the call flow's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.model.retry import RetryPolicy
from meshlib.policy.classify import CONDITION_WORDS, GRPC_CONDITIONS, Classification, Condition

PUSHBACK = "grpc-retry-pushback-ms"
_STATUS_CODES = "retriable-status-codes"
_HEADERS = "retriable-headers"
_RATE_LIMITED = "envoy-ratelimited"
_GRPC_MASK = sum(int(bit) for bit in GRPC_CONDITIONS.values())
GRPC_WORDS = frozenset(word for word, bit in CONDITION_WORDS.items() if bit & _GRPC_MASK)
HTTP_WORDS = frozenset(CONDITION_WORDS) - GRPC_WORDS | {_STATUS_CODES, _HEADERS, _RATE_LIMITED}
HeaderTest = Callable[[RequestHead], bool]


class RetryRules:
    """A RetryPolicy made ready to ask. Immutable.

    `headers` are the policy's `retriable_headers`, compiled. `policy` is what it was made of. `unknown` holds the
    `retry_on` words that mean nothing here: words Envoy does not know either, and `http3-post-connect-failure`, which
    never happens without HTTP/3. They never fire; whoever compiles the plan reports them.
    """

    __slots__ = (
        "_by_conditions",
        "_by_grpc_status",
        "_codes",
        "_headers",
        "_mask",
        "_rate_limited",
        "_words",
        "base_interval",
        "headers",
        "host_selection_retry_max_attempts",
        "max_interval",
        "num_retries",
        "per_try_idle_timeout",
        "per_try_timeout",
        "policy",
        "previous_hosts",
        "rate_limited_back_off",
        "unknown",
    )

    def __init__(self, policy: RetryPolicy, headers: Sequence[HeaderTest] = ()) -> None:
        self.policy = policy
        asked = {part.strip() for word in policy.retry_on for part in word.split(",")} - {""}
        self._words = tuple((word, int(bit)) for word, bit in CONDITION_WORDS.items() if word in asked)
        self._mask = sum(bit for _, bit in self._words)
        self._codes = frozenset(policy.retriable_status_codes if _STATUS_CODES in asked else ())
        self.headers = tuple(headers)
        self._headers = self.headers if _HEADERS in asked else ()
        self._rate_limited = _RATE_LIMITED in asked
        # Whether a response that fulfils no condition is known to be retried for no other reason.
        self._by_grpc_status = not (self._codes or self._headers or self._rate_limited)
        self._by_conditions = self._by_grpc_status and not self._mask & _GRPC_MASK
        self.unknown = tuple(sorted(asked - HTTP_WORDS - GRPC_WORDS))
        self.num_retries = policy.num_retries
        self.per_try_timeout = policy.per_try_timeout
        self.per_try_idle_timeout = policy.per_try_idle_timeout
        self.base_interval = policy.base_interval
        self.max_interval = policy.max_interval
        self.rate_limited_back_off = policy.rate_limited_back_off
        self.previous_hosts = policy.previous_hosts
        self.host_selection_retry_max_attempts = policy.host_selection_retry_max_attempts

    def reason(self, outcome: Outcome, classification: Classification) -> str | None:
        """The `retry_on` word that asks for another attempt, None when no word does.

        A response with `x-envoy-ratelimited` is retried only where `envoy-ratelimited` was asked for, whatever its
        status. `x-envoy-overloaded` changes nothing, as in Envoy since 1.14.
        """
        if outcome.failure is not None:
            return self._first(classification.conditions & self._mask)
        decided = self._by_conditions or (self._by_grpc_status and outcome.grpc_status is not None)
        if decided and not classification.conditions & self._mask:
            return None
        if self._rate_limited and outcome.header("x-envoy-ratelimited") is not None:
            return _RATE_LIMITED
        reason = self._of_response(outcome, classification)
        if reason is not None and outcome.header("x-envoy-ratelimited") is not None:
            return None
        return reason

    def _of_response(self, outcome: Outcome, classification: Classification) -> str | None:
        hit = classification.conditions & self._mask
        if hit & ~_GRPC_MASK:
            return self._first(hit)
        if outcome.status in self._codes:
            return _STATUS_CODES
        if self._headers and self._has_retriable_header(outcome):
            return _HEADERS
        if hit:
            return self._first(hit)
        if self._mask & _GRPC_MASK and outcome.grpc_status is None:
            status = outcome.header("grpc-status")
            return None if status is None else self._first(_grpc_condition(status) & self._mask)
        return None

    def _has_retriable_header(self, outcome: Outcome) -> bool:
        head = ResponseHead(outcome.status or 0, outcome.headers or ())
        return any(test(head) for test in self._headers)

    def _first(self, hit: int) -> str | None:
        if not hit:
            return None
        return next(word for word, bit in self._words if bit & hit)


class ResponseHead(RequestHead):
    """A response's headers as matchers of headers read them; its one pseudo header is `:status`."""

    __slots__ = ("_status",)

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        super().__init__("", "", "", "", headers)
        self._status = str(status)

    def _pseudo(self, name: str) -> str | None:
        return self._status if name == ":status" else None


def compile_retry(policy: RetryPolicy | None, headers: Sequence[HeaderTest] = ()) -> RetryRules | None:
    """The rules of a policy; None without a policy. A policy whose words are all unknown never retries, but its
    `per_try_timeout` still holds, as in Envoy.
    """
    return None if policy is None else RetryRules(policy, headers)


def parse_pushback(value: str) -> float | None:
    """Seconds until the next attempt as a gRPC server asks for them (gRFC A6, milliseconds); None forbids one: a
    negative number, or no number at all.
    """
    if not (value.isascii() and value.isdigit()) or len(value) > 10:
        return None
    return int(value) / 1000.0


def _grpc_condition(value: str) -> int:
    """The condition of a `grpc-status` response header; anything that is not a small decimal number is none."""
    if not (value.isascii() and value.isdigit()) or len(value) > 2:
        return 0
    return int(GRPC_CONDITIONS.get(int(value), Condition.NONE))
