"""Quota buckets: what a service has assigned, what becomes of a request by that, and what has been used.

    no assignment --assigned--> assigned --time to live over--> expired --timeout--> no assignment
                                    ^____________assigned___________|

A bucket is made by its first request, which is decided by `no_assignment`; the service hears of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from meshlib.model.filters import TokenBucket
from meshlib.model.rate_limit_quota import BucketId, BucketSettings, QuotaStrategy, RequestsPerTimeUnit
from meshlib.policy.rate_limit import LocalTokenBucket
from meshlib.state.counter import Counter

MAX_BUCKETS = 10_000
"""Buckets of one domain: callers may choose their names. Beyond, requests are as those of a bucket without assignment,
and nobody is told of them.
"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the service says of a bucket. `strategy` None: it may be forgotten. `lives`: seconds (None: for ever)."""

    bucket: BucketId
    strategy: QuotaStrategy | None = "ALLOW_ALL"
    lives: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a bucket's requests were since the last report, `elapsed` seconds ago."""

    bucket: BucketId
    elapsed: float
    allowed: int
    denied: int


class QuotaBucket:
    """One bucket. Thread-safe; nothing is held over a call."""

    __slots__ = ("_allowed", "_assigned", "_denied", "_fallbacks", "_reported", "id", "next_report", "settings")

    def __init__(self, bucket: BucketId, settings: BucketSettings, now: float) -> None:
        self.id = bucket
        self.settings = settings
        self.next_report = now  # the service hears of it at once
        self._allowed, self._denied = Counter(), Counter()
        self._reported = (now, 0, 0)
        # One value, stored at once: the strategy, its limiter, when it expires.
        self._assigned: tuple[QuotaStrategy, Limiter, float | None] | None = None
        self._fallbacks: dict[QuotaStrategy, Limiter] = {}

    def take(self, now: float) -> bool:
        """Whether a request may pass; it is counted either way."""
        allowed = self._limiter(now)(now)
        (self._allowed if allowed else self._denied).add()
        return allowed

    def assign(self, assignment: Assignment, now: float) -> None:
        """A new assignment. Of one that only lives longer the tokens stay."""
        strategy, before = assignment.strategy, self._assigned
        if strategy is None:
            self._assigned = None
            return
        limiter = before[1] if before is not None and before[0] == strategy else limiter_of(strategy)
        self._assigned = (strategy, limiter, None if assignment.lives is None else now + assignment.lives)

    def report(self, now: float) -> Usage:
        """What has been used since the last report; the next is due after the bucket's interval."""
        began, allowed, denied = self._reported
        self._reported = (now, self._allowed.value, self._denied.value)
        self.next_report = now + self.settings.reporting_interval
        return Usage(self.id, max(0.0, now - began), self._reported[1] - allowed, self._reported[2] - denied)

    def _limiter(self, now: float) -> Limiter:
        assigned, settings = self._assigned, self.settings
        if assigned is None:
            return self._fallback(settings.no_assignment)
        _, limiter, expires = assigned
        if expires is None or now < expires:
            return limiter
        timeout = settings.expired_timeout
        if settings.expired is None or (timeout is not None and now >= expires + timeout):
            self._assigned = None
            return self._fallback(settings.no_assignment)
        return limiter if settings.expired == "reuse" else self._fallback(settings.expired)

    def _fallback(self, strategy: QuotaStrategy) -> Limiter:
        found = self._fallbacks.get(strategy)
        return self._fallbacks.setdefault(strategy, limiter_of(strategy)) if found is None else found


Limiter = Callable[[float], bool]


def limiter_of(strategy: QuotaStrategy) -> Limiter:
    """Whether a request may pass now."""
    if isinstance(strategy, RequestsPerTimeUnit):
        if strategy.requests == 0:
            return lambda now: False
        strategy = TokenBucket(strategy.requests, strategy.requests, strategy.seconds)
    if isinstance(strategy, TokenBucket):
        return LocalTokenBucket(strategy).take
    allow = strategy == "ALLOW_ALL"
    return lambda now: allow


class QuotaBook:
    """The buckets of one domain. `on_new` hears of each new one."""

    __slots__ = ("_buckets", "_on_new", "domain")

    def __init__(self, domain: str, on_new: Callable[[], None]) -> None:
        self.domain = domain
        self._on_new = on_new
        self._buckets: dict[BucketId, QuotaBucket] = {}

    def bucket(self, bucket: BucketId, settings: BucketSettings, now: float) -> QuotaBucket:
        """The bucket of that name, made if there is none. Settings that have changed count from now on."""
        found = self._buckets.get(bucket)
        if found is not None:
            if found.settings is not settings:
                found.settings = settings
            return found
        made = QuotaBucket(bucket, settings, now)
        if len(self._buckets) >= MAX_BUCKETS:
            return made
        kept = self._buckets.setdefault(bucket, made)
        if kept is made:
            self._on_new()
        return kept

    def assign(self, assignments: Iterable[Assignment], now: float) -> None:
        """What the service says. Buckets that nobody has asked for are none of ours."""
        for assignment in assignments:
            found = self._buckets.get(assignment.bucket)
            if found is None:
                continue
            found.assign(assignment, now)
            if assignment.strategy is None:
                self._buckets.pop(assignment.bucket, None)

    def reports(self, now: float, *, anew: bool = False) -> Iterator[Usage]:
        """The reports that are due; `anew`: of all buckets, to a service that knows nothing of them."""
        for bucket in list(self._buckets.values()):
            if anew or now >= bucket.next_report:
                yield bucket.report(now)

    def next_report(self) -> float | None:
        """When the next report is due; None without buckets."""
        return min((bucket.next_report for bucket in list(self._buckets.values())), default=None)

    def __len__(self) -> int:
        return len(self._buckets)
