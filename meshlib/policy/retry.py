"""Retry rules: is this outcome worth another attempt? (Envoy's `RetryStateImpl`, condition by condition.)

How often is `num_retries`; when is `backoff`; whether the cluster can bear it is `budget`; whether the body can be
sent again and time is left is the call flow's to know.
"""

from __future__ import annotations

from meshlib.model.outcome import Outcome
from meshlib.model.route import RetryPolicy
from meshlib.policy.classify import CONDITION_WORDS, GRPC_CONDITIONS, Classification, Condition

PUSHBACK = "grpc-retry-pushback-ms"
_STATUS_CODES = "retriable-status-codes"
_RATE_LIMITED = "envoy-ratelimited"
_GRPC_MASK = sum(int(bit) for bit in GRPC_CONDITIONS.values())


class RetryRules:
    """A RetryPolicy made ready to ask. Immutable.

    `unknown` holds the `retry_on` words that mean nothing here: words Envoy does not know either, and
    `retriable-headers` and `http3-post-connect-failure`, which this version cannot honour. They never fire; whoever
    compiles the plan reports them.
    """

    __slots__ = (
        "_by_conditions",
        "_by_grpc_status",
        "_codes",
        "_mask",
        "_rate_limited",
        "_words",
        "base_interval",
        "host_selection_retry_max_attempts",
        "max_interval",
        "num_retries",
        "per_try_idle_timeout",
        "per_try_timeout",
        "previous_hosts",
        "unknown",
    )

    def __init__(self, policy: RetryPolicy) -> None:
        asked = {part.strip() for word in policy.retry_on for part in word.split(",")} - {""}
        self._words = tuple((word, int(bit)) for word, bit in CONDITION_WORDS.items() if word in asked)
        self._mask = sum(bit for _, bit in self._words)
        self._codes = frozenset(policy.retriable_status_codes if _STATUS_CODES in asked else ())
        self._rate_limited = _RATE_LIMITED in asked
        # Whether a response that fulfils no condition is known to be retried for no other reason.
        self._by_grpc_status = not (self._codes or self._rate_limited)
        self._by_conditions = self._by_grpc_status and not self._mask & _GRPC_MASK
        self.unknown = tuple(sorted(asked - CONDITION_WORDS.keys() - {_STATUS_CODES, _RATE_LIMITED}))
        self.num_retries = policy.num_retries
        self.per_try_timeout = policy.per_try_timeout
        self.per_try_idle_timeout = policy.per_try_idle_timeout
        self.base_interval = policy.base_interval
        self.max_interval = policy.max_interval
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
        if hit:
            return self._first(hit)
        if self._mask & _GRPC_MASK and outcome.grpc_status is None:
            status = outcome.header("grpc-status")
            return None if status is None else self._first(_grpc_condition(status) & self._mask)
        return None

    def _first(self, hit: int) -> str | None:
        if not hit:
            return None
        return next(word for word, bit in self._words if bit & hit)


def compile_retry(policy: RetryPolicy | None) -> RetryRules | None:
    """The rules of a policy; None without a policy. A policy whose words are all unknown never retries, but its
    `per_try_timeout` still holds, as in Envoy.
    """
    return None if policy is None else RetryRules(policy)


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
