"""The attempt loop: pick, protect, send, judge, and perhaps again."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from meshlib.balancing.base import Host
from meshlib.engine import facts, grpc_status
from meshlib.engine.aggregate import pick_child, refresh
from meshlib.engine.avoiding import Avoided, PreviousPriorities
from meshlib.engine.circuits import BreakerLike, give_back, permitted, take
from meshlib.engine.commands import Abandoned, BodyEnd, CallInfo, Discard, Flow, Replayable, Start, Wait
from meshlib.engine.decision import EXPECTED_TIMEOUT, Forward, rewrite_authority, upstream_head
from meshlib.engine.ending import (
    ATTEMPT_COUNT,
    Refused,
    commit,
    ended,
    exhausted,
    fail,
    finished,
    note,
    refuse_malformed,
)
from meshlib.engine.extras import NONE, Extras, body_size, heard, rules_for, timeout_for
from meshlib.engine.hedging import race
from meshlib.engine.judging import judge, sweep
from meshlib.engine.retrying import retry, unseen
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.lb import takes_hash
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.policy.asked import Asked, consumed, malformed, speaks
from meshlib.policy.breaker import Permit
from meshlib.policy.retry import RetryRules
from meshlib.policy.thresholds import admit

IS_TIMEOUT_RETRY = b"x-envoy-is-timeout-retry"
_TIMEOUT = Failure.TIMEOUT  # looking up a member of an enum costs as much as a call


class Attempts:
    """The attempts of one call, and what they share.

    `held` are the permits of the endpoint's circuit breaker, where there are any, for the attempt that begins.
    `asked` is what the request asks for in `x-envoy-*` headers, `extras` what few routes use; both are None for nearly
    every call. `hedges`: at the per-try timeout another attempt begins beside the slow one.
    """

    __slots__ = (
        "action",
        "after_timeout",
        "asked",
        "began",
        "cluster",
        "deadline",
        "decision",
        "extras",
        "head",
        "hedges",
        "held",
        "info",
        "load",
        "priorities",
        "replayable",
        "request_hash",
        "rules",
        "runtime",
        "set_cookie",
        "share",
        "stand_in",
        "thresholds",
        "transparent",
        "tried",
        "upstream",
    )

    def __init__(
        self,
        runtime: Runtime,
        decision: Forward,
        head: RequestHead,
        info: CallInfo,
        now: float,
        deadline: float | None,
        replayable: Replayable,
        source_ip: str,
        *,
        stand_in: Host | None = None,
    ) -> None:
        route = decision.route
        self.runtime = runtime
        self.decision = decision
        self.head = head
        self.info = info
        self.began = now
        self.cluster = decision.cluster
        self.share = decision.share
        self.action = decision.action
        self.rules = route.retry
        self.replayable = replayable
        self.load, self.thresholds = decision.cluster.thresholds(decision.action.priority)
        timeout = route.stream_timeout if head.streams else route.timeout
        self.asked: Asked | None = None
        self.extras = route.extras
        self.hedges = False
        self.held: tuple[tuple[BreakerLike, Permit], ...]
        spoken = head
        if self.extras is not None or speaks(head.headers):
            spoken, timeout = self._unusual(self.extras or NONE, None if deadline is None else deadline - now)
        if timeout is not None and (deadline is None or now + timeout < deadline):
            deadline = now + timeout
        self.deadline = deadline
        changed = self.share.request_headers is not None or route.rewrite_path is not None
        self.upstream = upstream_head(decision, spoken, runtime.wall_clock) if changed else spoken
        # As in Envoy of the request that the endpoint sees, and a cookie is made only where it decides the endpoint.
        hashed = route.hasher(self.upstream, source_ip, runtime.rng) if route.hasher is not None else None
        self.request_hash = hashed.hash if hashed is not None else None
        cookie = hashed.set_cookie if hashed is not None else None
        self.set_cookie = cookie if cookie is None or takes_hash(self.cluster.config.lb_policy) else None
        self.tried: list[Host] = []
        self.stand_in = stand_in
        self.transparent = False

    def flow(self) -> Flow:
        """The call: one attempt after the other, or attempts that overlap; or no attempt at all."""
        if self.extras is not None and (wrong := self._malformed()) is not None:
            return _refuse(self, *wrong)
        return race(self) if self.hedges else self.run()

    def run(self) -> Flow:  # noqa: C901  the stages of an attempt in their order
        """Attempt until a response is committed or nothing more may be tried."""
        now, number = self.began, 0
        try:
            while True:
                number += 1
                # a Who: balanced anew for each attempt, so that a retry may go elsewhere.
                host = self.pick(now)
                if host is None or self.cluster.circuits is not None:
                    host, refused = permitted(self, host, now)
                    if host is None:
                        yield fail(self, now, *refused)
                        return
                # b May it: deadline, breaker, thresholds; after the pick, because UH is the more telling answer.
                start = self.start(number, host, now)
                # The load is given back however this ends: refused, answered, failed, cancelled, dropped.
                try:
                    overflow = self.admit(start, now)
                    if overflow is not None:
                        yield fail(self, now, *overflow)
                        return
                    # c Send.
                    outcome: Outcome = yield start
                    sent, now = now, outcome.at
                    verdict = judge(self, start, outcome)
                    delay, reason = retry(self, outcome, verdict, number, now)
                    if self.runtime.observers:
                        note(self, start, outcome, sent, reason)
                    # d Commit at the response headers: from here nothing is retried.
                    if delay is None and outcome.failure is None:
                        end: BodyEnd = yield commit(self, start, outcome, verdict)
                        finished(self, start, outcome, end)
                        return
                finally:
                    self.give_back(start)
                if delay is None:
                    if not unseen(self, outcome):
                        yield exhausted(self, outcome, verdict, now)
                        return
                    delay = 0.0
                # e Again: drop what came, then back off; the retry counts against its budget meanwhile.
                if outcome.failure is None:
                    now = yield Discard(outcome)
                now = yield Wait(delay)
                self.tried.append(host)
                self.after_timeout = outcome.failure is Failure.PER_TRY_TIMEOUT
        except Abandoned as gone:
            self.info.flag, self.info.grpc_status = ResponseFlag.DC, grpc_status.failed(self.head, ResponseFlag.DC)
            ended(self, gone.at, None, ResponseFlag.DC)
            raise
        finally:
            self.load.retries.pop(self, None)

    def _unusual(self, extras: Extras, left: float | None) -> tuple[RequestHead, float | None]:
        """What the request asks for in `x-envoy-*` headers, and what the route has that few have: the request without
        those headers, and the seconds the call may take.
        """
        head, route = self.head, self.decision.route
        spoken, asked = heard(head, trusted=self.runtime.trust_envoy_headers)
        self.asked = asked
        rules = self.rules = rules_for(self.rules, extras, asked, head)
        if extras.body_limit is not None and rules is not None and body_size(head) > extras.body_limit:
            self.replayable = False
            self.cluster.stats["retry_or_shadow_abandoned"].add()
        if extras.previous_priorities is not None:
            self.priorities = PreviousPriorities(extras.previous_priorities)
        if rules is not None and rules.per_try_timeout and head.overlaps:
            self.hedges = extras.hedges if asked is None or asked.hedge is None else asked.hedge
        return spoken, timeout_for(route, extras, asked, head, left)

    def _malformed(self) -> tuple[str, str] | None:
        strict = self.extras.strict_headers if self.extras is not None else ()
        return malformed(consumed(self.head.headers), strict) if strict else None

    def pick(self, now: float) -> Host | None:
        """The endpoint of the next attempt; where a cluster has none at all, what stands in for one, if anything."""
        cluster = self.decision.cluster  # of an aggregate, whose attempts each have a cluster of their own
        if now >= cluster.next_sweep:
            if cluster.aggregate is not None:
                return pick_child(self, now)
            sweep(self.runtime, cluster, now)
        balancer = cluster.balancer
        if self.tried:
            host = self._pick_again()
        else:
            host = balancer.pick(self.request_hash, self.share.criteria, self.runtime.rng)
        if balancer.in_panic:
            cluster.stats["lb_healthy_panic"].add()
        if balancer.needs_refresh:
            refresh(balancer, self.runtime)
        if host is None and not balancer.hosts:
            return self.stand_in
        return host

    def _pick_again(self) -> Host | None:
        """The endpoint of a retry: predicates may turn some down, and a retry priority may look further."""
        extras, balancer = self.extras, self.cluster.balancer
        avoid, again = self.avoided()
        if extras is not None and extras.previous_priorities is not None:
            return self.priorities.pick(
                balancer, self.tried, self.request_hash, self.share.criteria, self.runtime.rng, avoid, again
            )
        return balancer.pick(self.request_hash, self.share.criteria, self.runtime.rng, avoid, again)

    def avoided(self) -> tuple[Collection[Host], int]:
        """What a retry had better not go to, and how often it is turned down."""
        rules, extras = self.rules, self.extras
        avoid: Collection[Host] = self.tried if rules is not None and rules.previous_hosts else ()
        if rules is not None and extras is not None and extras.avoids_labels:
            avoid = Avoided(avoid, rules.policy.omit_canary_hosts, rules.policy.omit_host_metadata)
        return avoid, rules.host_selection_retry_max_attempts if avoid and rules is not None else 0

    def start(self, number: int, host: Host, now: float) -> Start:
        """Attempt `number`, ready to be sent."""
        decision = self.decision
        if self.hedges:
            deadline, on_deadline = self.deadline, _TIMEOUT
        else:
            deadline, on_deadline = try_deadline(self.rules, self.deadline, now)
        final, longest = self.deadline, self.cluster.longest_stream
        if longest is not None and (final is None or now + longest < final):
            final = now + longest
            if deadline is None or final < deadline:
                deadline, on_deadline = final, Failure.PER_TRY_TIMEOUT
        timeout = None if deadline is None else deadline - now
        share = self.share
        # Not looked at in vain: of 10 000 endpoints this one is seldom in the processor's cache.
        hostname = host.endpoint.hostname if share.rewrite_host is not None or share.authority else ""
        head = attempt_head(decision, self.head, self.upstream, hostname, number, timeout)
        if number > 1 and self.extras is not None and self.extras.tells_timeout_retries:
            told = (IS_TIMEOUT_RETRY, b"true" if self.after_timeout else b"false")
            head = RequestHead(head.method, head.scheme, head.authority, head.path, [*head.headers, told])
        self.info.attempts = number
        self.info.endpoint = host.address
        idle = decision.route.idle
        priority = self.action.priority
        start = Start(
            number, self.cluster, host, head, deadline, on_deadline, final, idle, info=self.info, priority=priority
        )
        if self.cluster.circuits is not None:
            start.permits = self.held
        return start

    def admit(self, start: Start, now: float) -> Refused | None:
        """Deadline, circuit breaker, thresholds. What is taken here is given back in `give_back`."""
        cluster = self.cluster
        if self.deadline is not None and now >= self.deadline:
            self.info.attempts -= 1  # a back-off that took longer than it should have: this one is never made
            return ResponseFlag.UT, "the deadline had passed before the attempt", False
        breaker = cluster.breaker
        if breaker is not None or self.extras is not None:
            if breaker is not None and self.extras is None and (permit := breaker.permit(now)) is not None:
                start.permits = (*start.permits, (breaker, permit)) if start.permits else ((breaker, permit),)
            elif (refused := take(self, start, now)) is not None:
                return refused
        limit = self.thresholds.max_requests
        if not admit(self.load.requests, limit, start):
            cluster.stats["upstream_rq_active_overflow"].add()
            self.give_back(start)
            return ResponseFlag.UO, f"cluster {cluster.name!r} has {limit} active requests (max_requests)", False
        start.host.cell.live[start] = now
        cluster.stats["upstream_rq_total"].add()
        return None

    def give_back(self, start: Start) -> None:
        """What `admit` took, and what else an attempt holds."""
        if start.cluster is self.cluster:
            self.load.requests.pop(start, None)
        else:  # beside it another attempt went to another child of an aggregate
            start.cluster.thresholds(self.action.priority)[0].requests.pop(start, None)
        start.host.cell.live.pop(start, None)
        if start.permits:
            give_back(start)


def _refuse(call: Attempts, name: str, value: str) -> Flow:
    yield refuse_malformed(call, name, value)


def attempt_deadline(decision: Forward, deadline: float | None, now: float) -> tuple[float | None, Failure]:
    """When an attempt begun at `now` ends at the latest, and as what: the call's deadline or the per-try timeout."""
    return try_deadline(decision.route.retry, deadline, now)


def try_deadline(rules: RetryRules | None, deadline: float | None, now: float) -> tuple[float | None, Failure]:
    """The same by the rules in force."""
    per_try = rules.per_try_timeout if rules is not None else None
    if per_try is not None and (deadline is None or now + per_try < deadline):
        return now + per_try, Failure.PER_TRY_TIMEOUT
    return deadline, _TIMEOUT


def attempt_head(
    decision: Forward, head: RequestHead, upstream: RequestHead, hostname: str, number: int, timeout: float | None
) -> RequestHead:
    """The request of attempt `number` (from 1): what the attempts share (`upstream`, made of the caller's `head`), the
    endpoint's host, the seconds this attempt may take, and its number.
    """
    share = decision.share
    if share.rewrite_host is not None or share.authority:
        appends, known = decision.action.append_x_forwarded_host, partial(facts.of_request, decision, facts.no_clock)
        upstream = rewrite_authority(share, head, upstream, hostname, appends, known)
    counted = decision.route.include_attempt_count
    if head.says_timeout or not share.tells_upstream:
        timeout = None
    if timeout is None and not counted:
        return upstream
    headers = upstream.headers
    if timeout is not None:
        milliseconds = int(timeout * 1000)
        headers = [*headers, (EXPECTED_TIMEOUT, b"%d" % (milliseconds if milliseconds > 0 else 1))]
    if counted:
        told = [pair for pair in headers if pair[0].lower() != ATTEMPT_COUNT]
        headers = [*told, (ATTEMPT_COUNT, b"%d" % number)]
    return RequestHead(upstream.method, upstream.scheme, upstream.authority, upstream.path, headers)
