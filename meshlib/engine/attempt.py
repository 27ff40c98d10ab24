"""The attempt loop: pick, protect, send, judge, and perhaps again."""

from __future__ import annotations

from meshlib.balancing.base import Host
from meshlib.engine import grpc_status
from meshlib.engine.commands import Abandoned, BodyEnd, CallInfo, Discard, Fail, Flow, Replayable, Start, Wait
from meshlib.engine.decision import EXPECTED_TIMEOUT, Forward, rewrite_authority, upstream_head
from meshlib.engine.ending import commit, ended, exhausted, fail, finished, note
from meshlib.engine.judging import judge, sweep
from meshlib.engine.retrying import retry, unseen
from meshlib.engine.runtime import Runtime
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.policy.thresholds import admit

ATTEMPT_COUNT = b"x-envoy-attempt-count"
_TIMEOUT = Failure.TIMEOUT  # looking up a member of an enum costs as much as a call


class Attempts:
    """The attempts of one call, and what they share."""

    __slots__ = (
        "action",
        "began",
        "cluster",
        "deadline",
        "decision",
        "head",
        "info",
        "load",
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
        if timeout is not None and (deadline is None or now + timeout < deadline):
            deadline = now + timeout
        self.deadline = deadline
        hashed = route.hasher(head, source_ip, runtime.rng) if route.hasher is not None else None
        self.request_hash = hashed.hash if hashed is not None else None
        self.set_cookie = hashed.set_cookie if hashed is not None else None
        self.upstream = upstream_head(decision, head)
        self.tried: list[Host] = []
        self.stand_in = stand_in
        self.transparent = False

    def run(self) -> Flow:
        """Attempt until a response is committed or nothing more may be tried."""
        now, number = self.began, 0
        try:
            while True:
                number += 1
                # a Who: balanced anew for each attempt, so that a retry may go elsewhere.
                host = self._pick(now) or self._without_endpoints()
                if host is None:
                    yield fail(self, now, ResponseFlag.UH, f"no healthy endpoint in cluster {self.cluster.name!r}")
                    return
                # b May it: deadline, breaker, thresholds; after the pick, because UH is the more telling answer.
                start = self._start(number, host, now)
                # The load is given back however this ends: refused, answered, failed, cancelled, dropped.
                try:
                    refused = self._admit(start, now)
                    if refused is not None:
                        yield refused
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
                    self._give_back(start)
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
        except Abandoned as gone:
            self.info.flag, self.info.grpc_status = ResponseFlag.DC, grpc_status.failed(self.head, ResponseFlag.DC)
            ended(self, gone.at, None, ResponseFlag.DC)
            raise
        finally:
            self.load.retries.pop(self, None)

    def _pick(self, now: float) -> Host | None:
        cluster = self.cluster
        if now >= cluster.next_sweep:
            sweep(self, now)
        rules = self.rules
        tried = self.tried if rules is not None and rules.previous_hosts else ()
        again = rules.host_selection_retry_max_attempts if tried and rules is not None else 0
        balancer = cluster.balancer
        host = balancer.pick(self.request_hash, self.share.criteria, self.runtime.rng, tried, again)
        if balancer.in_panic:
            cluster.stats["lb_healthy_panic"].add()
        if balancer.needs_refresh:
            balancer.needs_refresh = False  # one call is enough to ask
            self.runtime.background(balancer.refresh)
        return host

    def _without_endpoints(self) -> Host | None:
        """What stands in for an endpoint in a cluster that has none at all, where the caller needs none."""
        return None if self.cluster.balancer.hosts else self.stand_in

    def _start(self, number: int, host: Host, now: float) -> Start:
        decision = self.decision
        deadline, on_deadline = attempt_deadline(decision, self.deadline, now)
        timeout = None if deadline is None else deadline - now
        share = self.share
        # Not looked at in vain: of 10 000 endpoints this one is seldom in the processor's cache.
        hostname = host.endpoint.hostname if share.rewrite_host is not None or share.authority else ""
        head = attempt_head(decision, self.head, self.upstream, hostname, number, timeout)
        self.info.attempts = number
        self.info.endpoint = host.address
        idle = decision.route.idle
        return Start(number, self.cluster, host, head, deadline, on_deadline, self.deadline, idle, info=self.info)

    def _admit(self, start: Start, now: float) -> Fail | None:
        """Deadline, circuit breaker, thresholds. What is taken here is given back in `_give_back`."""
        cluster = self.cluster
        if self.deadline is not None and now >= self.deadline:
            return fail(self, now, ResponseFlag.UT, "the deadline had passed before the attempt")
        if cluster.breaker is not None:
            start.permit = cluster.breaker.permit(now)
            if start.permit is None:
                return fail(
                    self, now, ResponseFlag.UO, f"the circuit breaker of cluster {cluster.name!r} is open", True
                )
        limit = self.thresholds.max_requests
        if not admit(self.load.requests, limit, start):
            cluster.stats["upstream_rq_active_overflow"].add()
            self._give_back(start)
            reason = f"cluster {cluster.name!r} has {limit} active requests (max_requests)"
            return fail(self, now, ResponseFlag.UO, reason)
        start.host.cell.live[start] = now
        cluster.stats["upstream_rq_total"].add()
        return None

    def _give_back(self, start: Start) -> None:
        self.load.requests.pop(start, None)
        start.host.cell.live.pop(start, None)
        permit, breaker = start.permit, self.cluster.breaker
        if permit is not None and breaker is not None:
            start.permit = None
            breaker.release(permit)


def attempt_deadline(decision: Forward, deadline: float | None, now: float) -> tuple[float | None, Failure]:
    """When an attempt begun at `now` ends at the latest, and as what: the call's deadline or the per-try timeout."""
    rules = decision.route.retry
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
        upstream = rewrite_authority(share, head, upstream, hostname, decision.action.append_x_forwarded_host)
    counted = decision.route.include_attempt_count
    if head.says_timeout or not share.tells_upstream:
        timeout = None
    if timeout is None and not counted:
        return upstream
    headers = list(upstream.headers)
    if timeout is not None:
        milliseconds = int(timeout * 1000)
        headers.append((EXPECTED_TIMEOUT, b"%d" % (milliseconds if milliseconds > 0 else 1)))
    if counted:
        headers.append((ATTEMPT_COUNT, b"%d" % number))
    return RequestHead(upstream.method, upstream.scheme, upstream.authority, upstream.path, headers)
