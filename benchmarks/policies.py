"""What each policy costs per call, beside what people stack by hand, in one run on one core.

    python benchmarks/policies.py [--json] [--check]

Each figure is the best of several rounds: what the code costs, not what else the machine was doing. `--check` exits
non-zero when a budget is exceeded (breaker 1.5 µs, bucket 1 µs a call). Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle

from meshlib.engine.ends import Admit, End
from meshlib.engine.local_limit import LocalRateLimitFilter
from meshlib.engine.request_limit import RequestLimitFilter
from meshlib.model.cluster import CircuitBreaker, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.filters import LocalRateLimit, LocalRateLimitDescriptor, TokenBucket
from meshlib.model.limiters import Bucket, ConcurrencyLimit, RequestLimit, UniformRate
from meshlib.model.matchers import FractionalPercent
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.rate_limits import RateLimit, RequestHeader
from meshlib.model.request import RequestHead
from meshlib.model.route import RetryPolicy
from meshlib.policy import budget, thresholds
from meshlib.policy.backoff import backoff
from meshlib.policy.breaker import Breaker
from meshlib.policy.classify import classify
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.rate_limit import LocalTokenBucket
from meshlib.policy.retry import RetryRules
from meshlib.state.cells import ClusterState, PriorityState

ROUNDS = 7
SECONDS_PER_ROUND = 0.05
END = End(1.0)
PLENTY = TokenBucket(max_tokens=10**9, tokens_per_fill=10**9)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"12"), (b"date", b"today"), (b"server", b"x")]

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Figure:
    """Nanoseconds per call of one way of doing one thing; `budget` is what it may cost."""

    group: str
    name: str
    nanoseconds: float
    budget: float | None = None


def measure(work: Work) -> float:
    """The best round's nanoseconds per call."""
    timer = timeit.Timer(work)
    number = 1
    while timer.timeit(number) < SECONDS_PER_ROUND / 10:
        number *= 4
    number *= 4
    return min(timer.repeat(ROUNDS, number)) / number * 1e9


def breakers() -> Iterator[tuple[str, Work, float | None]]:
    """Ask, succeed, say so; and what a refusal costs while the breaker is open."""
    ours = Breaker(CircuitBreaker(), "bench")
    refusing = Breaker(CircuitBreaker(), "bench")
    refusing.open(0.0)

    def call() -> None:
        permit = ours.permit(1.0)
        if permit is not None:
            ours.record(permit, True, 1.0)

    yield "meshlib, closed", call, 1500.0
    yield "meshlib, open", lambda: refusing.permit(1.0), 1500.0
    yield from windows()
    if importlib.util.find_spec("pybreaker"):
        yield from pybreakers()
    if importlib.util.find_spec("purgatory"):
        yield "purgatory, closed", purgatory_call(), None
    if importlib.util.find_spec("hyx"):
        yield "hyx, closed (asyncio)", hyx_call(), None


def windows() -> Iterator[tuple[str, Work, float | None]]:
    """The same with rates: every call is timed and goes into a window, one of twenty fails."""
    for name, policy in (
        ("the last 100 calls", CircuitBreaker(0, failure_rate=50, slow_call_rate=50)),
        ("10 s", CircuitBreaker(0, failure_rate=50, slow_call_rate=50, window_type="time", window_size=10.0)),
    ):
        breaker, ticks = Breaker(policy, "bench"), iter(range(10**12))

        def call(breaker: Breaker = breaker, ticks: Iterator[int] = ticks) -> None:
            tick = next(ticks)
            now = tick * 1e-4  # ten thousand calls a second
            permit = breaker.permit(now)
            if permit is not None:
                breaker.record(permit, tick % 20 != 0, now)

        yield f"meshlib, rates over {name}, 5 % fail", call, 1500.0


def purgatory_call() -> Work:
    """Purgatory's own way round a call."""
    from purgatory import SyncCircuitBreakerFactory

    factory = SyncCircuitBreakerFactory()
    breaker = factory.get_breaker("bench")

    def call() -> None:
        with breaker:
            pass

    return call


def hyx_call() -> Work:
    """That of hyx, which is a coroutine: driven by hand, for it never waits."""
    from hyx.circuitbreaker import consecutive_breaker

    breaker = consecutive_breaker()

    async def guarded() -> None:
        async with breaker:
            pass

    def call() -> None:
        try:
            guarded().send(None)
        except StopIteration:
            return

    return call


def pybreakers() -> Iterator[tuple[str, Work, float | None]]:
    """Pybreaker by itself, and its object under our bridge."""
    import pybreaker

    from meshlib.policy.pybreaker_bridge import PybreakerBridge

    bridge = PybreakerBridge(pybreaker.CircuitBreaker())
    theirs = pybreaker.CircuitBreaker()

    def call() -> None:
        permit = bridge.permit(1.0)
        if permit is not None:
            bridge.record(permit, True, 1.0)

    def nothing() -> None:
        """The guarded function."""

    yield "a pybreaker object, by meshlib", call, None
    yield "pybreaker.call (serialises calls)", lambda: theirs.call(nothing), None


def limits() -> Iterator[tuple[str, Work, float | None]]:
    """One hit, admitted."""
    now = iter(range(10**12)).__next__
    bucket = LocalTokenBucket(PLENTY)
    everything = FractionalPercent(100)
    plain = LocalRateLimit("bench", PLENTY, everything, everything)
    described = replace(
        plain,
        descriptors=(LocalRateLimitDescriptor((("user", ""),), PLENTY),),
        max_dynamic_descriptors=1000,
        rate_limits=(RateLimit((RequestHeader("x-user", "user"),)),),
    )
    quick, by_user = LocalRateLimitFilter(plain), LocalRateLimitFilter(described)
    hot = RequestLimitFilter(RequestLimit("hot", Bucket(1e9), key="header:x-user"))
    queue = RequestLimitFilter(RequestLimit("queue", UniformRate(1e9)))
    few = RequestLimitFilter(RequestLimit("few", ConcurrencyLimit(10**9)))
    rng = random.Random(1)
    heads = [RequestHead("GET", "http", "a", "/", [(b"x-user", b"%d" % number)]) for number in range(1000)]
    users = cycle(heads).__next__
    yield "meshlib token bucket", lambda: bucket.take(now()), 1000.0
    yield "meshlib local_ratelimit filter", lambda: quick.on_request(heads[0], now(), rng), 1000.0
    yield (
        "meshlib local_ratelimit, a descriptor for each of 1000 users",
        lambda: by_user.on_request(users(), now(), rng),
        None,
    )
    yield "meshlib rate_limit, a bucket for each of 1000 users", lambda: hot.on_request(users(), now(), rng), None
    yield "meshlib rate_limit, uniform rate", lambda: queue.on_request(heads[0], now(), rng), None

    def in_flight() -> None:
        admitted = few.on_request(heads[0], 1.0, rng)
        if isinstance(admitted, Admit) and admitted.on_end is not None:
            admitted.on_end(END)

    yield "meshlib rate_limit, in flight, in and out", in_flight, None
    if importlib.util.find_spec("limits"):
        yield from limits_library()


def limits_library() -> Iterator[tuple[str, Work, float | None]]:
    """The library `limits` in memory, by itself and as our shared limit uses it."""
    from limits import parse
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

    from meshlib.policy.shared_limit import SharedRateLimit

    item = parse("1000000000/hour")
    fixed, moving = FixedWindowRateLimiter(MemoryStorage()), MovingWindowRateLimiter(MemoryStorage())
    small = parse("1000/second")
    shared = SharedRateLimit("1000000000/hour", "memory://")
    yield "limits, fixed window in memory", lambda: fixed.hit(item, "a"), None
    yield "limits, moving window in memory", lambda: moving.hit(small, "a"), None
    yield "meshlib shared limit over it, with figures", lambda: shared.hit("a"), None


def retries() -> Iterator[tuple[str, Work, float | None]]:
    """From the end of an attempt to the decision about the next."""
    rules = RetryRules(RetryPolicy(("5xx", "reset", "connect-failure")))
    istio = RetryRules(
        RetryPolicy(("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"))
    )
    state, limit = PriorityState(), Thresholds(retry_budget=RetryBudget())
    rng = random.Random(1)

    def success(wanted: RetryRules) -> Work:
        def work() -> None:
            outcome = Outcome(200, HEADERS)
            wanted.reason(outcome, classify(outcome))

        return work

    def retry() -> None:
        outcome = Outcome(failure=Failure.RESET)
        if rules.reason(outcome, classify(outcome)):
            backoff(1, 0.025, 0.25, rng)
            token = object()
            budget.admit_retry(state, limit, token)
            budget.release(state, token)

    yield "meshlib, 200: classify and decide", success(rules), None
    yield "meshlib, 200, Istio's default policy", success(istio), None
    yield "meshlib, reset: decide, back-off, budget", retry, None
    if importlib.util.find_spec("tenacity"):
        import tenacity

        guarded = tenacity.retry(stop=tenacity.stop_after_attempt(3))(lambda: None)
        yield "tenacity decorator, success", guarded, None


def protections() -> Iterator[tuple[str, Work, float | None]]:
    """What every attempt passes besides."""
    cluster = ClusterState("bench")
    cell = cluster.endpoint("10.0.0.1:80")
    detector = OutlierDetector(OutlierDetection())
    good = classify(Outcome(200))
    rng = random.Random(1)
    gate = thresholds.request_gate(PriorityState(), Thresholds())

    def pass_gate() -> None:
        token = object()
        gate.try_acquire(token)
        gate.release(token)

    yield "outlier detection, success", lambda: detector.record(cluster, cell, good, 1.0, 10, rng), None
    yield "threshold gate, in and out", pass_gate, None


GROUPS = {"breaker": breakers, "rate limit": limits, "retry": retries, "protection": protections}


def run() -> list[Figure]:
    """Every figure, in the order of the table."""
    return [
        Figure(group, name, measure(work), allowed)
        for group, cases in GROUPS.items()
        for name, work, allowed in cases()
    ]


def table(figures: list[Figure]) -> str:
    """A line each: cost, cost relative to the group's first, budget."""
    first = {figure.group: figure.nanoseconds for figure in reversed(figures)}
    lines = [f"{'group':<12}{'what':<44}{'ns/call':>9}{'x':>8}{'budget':>9}"]
    for figure in figures:
        ratio = figure.nanoseconds / first[figure.group]
        allowed = f"{figure.budget:.0f}" if figure.budget is not None else ""
        lines.append(f"{figure.group:<12}{figure.name:<44}{figure.nanoseconds:>9.0f}{ratio:>8.1f}{allowed:>9}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit non-zero when a budget is exceeded")
    options = parser.parse_args()
    figures = run()
    print(json.dumps([asdict(figure) for figure in figures], indent=2) if options.json else table(figures))
    over = [figure.name for figure in figures if figure.budget is not None and figure.nanoseconds > figure.budget]
    if options.check and over:
        print(f"over budget: {', '.join(over)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
