"""The attempt loop: pick, protect, send, judge, and perhaps again."""

from __future__ import annotations

from functools import partial

from meshlib.balancing.base import Host
from meshlib.engine import grpc_status
from meshlib.engine.commands import Abandoned, BodyEnd, CallInfo, Commit, Discard, Fail, Flow, Replayable, Start, Wait
from meshlib.engine.decision import EXPECTED_TIMEOUT, Forward, rewrite_authority, upstream_head
from meshlib.engine.events import AttemptEnded, CallEnded, EndpointEjected, EndpointReturned
from meshlib.engine.runtime import Runtime
from meshlib.engine.stats import count
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.policy.backoff import backoff
from meshlib.policy.breaker import Permit
from meshlib.policy.budget import admit_retry
from meshlib.policy.classify import PENDING, Classification, classify
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.retry import PUSHBACK, parse_pushback
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
        "permit",
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
        self.permit: Permit | None = None
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
                    yield self._fail(now, ResponseFlag.UH, f"no healthy endpoint in cluster {self.cluster.name!r}")
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
                    verdict = self._judge(host, outcome)
                    delay, reason = self._retry(outcome, verdict, number, now)
                    if self.runtime.observers:
                        self._note(start, outcome, sent, reason)
                    # d Commit at the response headers: from here nothing is retried.
                    if delay is None and outcome.failure is None:
                        end: BodyEnd = yield self._commit(outcome, verdict, number)
                        self._finished(host, outcome, end)
                        return
                finally:
                    self._give_back(start)
                if delay is None:
                    if not self._unseen(outcome):
                        yield self._exhausted(outcome, verdict, now)
                        return
                    delay = 0.0
                # e Again: drop what came, then back off; the retry counts against its budget meanwhile.
                if outcome.failure is None:
                    now = yield Discard(outcome)
                now = yield Wait(delay)
                self.tried.append(host)
        except Abandoned as gone:
            self.info.flag, self.info.grpc_status = ResponseFlag.DC, grpc_status.failed(self.head, ResponseFlag.DC)
            self._ended(gone.at, None, ResponseFlag.DC)
            raise
        finally:
            self.load.retries.pop(self, None)

    # ------------------------------------------------------------------ before the attempt

    def _pick(self, now: float) -> Host | None:
        cluster = self.cluster
        if now >= cluster.next_sweep:
            self._sweep(now)
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

    def _sweep(self, now: float) -> None:
        """Let ejected endpoints return whose time is over; cheap, because the next time is remembered."""
        cluster = self.cluster
        if cluster.detector is None:
            cluster.next_sweep = float("inf")
            return
        before = list(cluster.state.ejected)
        due = cluster.detector.sweep(cluster.state, now)
        returns = [cell.ejection.until for cell in list(cluster.state.ejected) if cell.ejection is not None]
        cluster.next_sweep = min(due, *returns, float("inf"))
        for cell in before:
            if not cell.ejected:
                self.runtime.emit(partial(EndpointReturned, now, cluster.name, cell.address))

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
            return self._fail(now, ResponseFlag.UT, "the deadline had passed before the attempt")
        if cluster.breaker is not None:
            self.permit = cluster.breaker.permit(now)
            if self.permit is None:
                return self._fail(
                    now, ResponseFlag.UO, f"the circuit breaker of cluster {cluster.name!r} is open", True
                )
        limit = self.thresholds.max_requests
        if not admit(self.load.requests, limit, start):
            cluster.stats["upstream_rq_active_overflow"].add()
            self._give_back(start)
            return self._fail(
                now, ResponseFlag.UO, f"cluster {cluster.name!r} has {limit} active requests (max_requests)"
            )
        start.host.cell.live[start] = None
        cluster.stats["upstream_rq_total"].add()
        return None

    # ------------------------------------------------------------------ after the attempt

    def _judge(self, host: Host, outcome: Outcome) -> Classification:
        """Classify once; breaker, outlier detection and counters read that one verdict."""
        verdict = classify(outcome)
        self.load.retries.pop(self, None)
        if verdict is PENDING:  # judged by its status, when the stream has ended; a breaker's permit is kept until then
            return verdict
        breaker, permit = self.cluster.breaker, self.permit
        if breaker is not None and permit is not None:
            self.permit = None
            if verdict.neutral:
                breaker.release(permit)
            else:
                breaker.record(permit, not verdict.counts_as_5xx, outcome.at, outcome.error)
        # A success that ends no streak of failures, which is what nearly all attempts are, tells the detector nothing.
        detector = self.cluster.detector
        if detector is not None and (verdict.counts_as_5xx or host.cell.failures_5xx):
            self._detect(detector, host, verdict, outcome.at)
        count(self.cluster.stats, outcome)
        return verdict

    def _detect(self, detector: OutlierDetector, host: Host, verdict: Classification, now: float) -> None:
        cluster = self.cluster
        hosts = len(cluster.balancer.hosts)
        if not hosts:  # a stand-in, or endpoints that have all left meanwhile: there is nothing to eject
            return
        ejection = detector.record(cluster.state, host.cell, verdict, now, hosts, self.runtime.rng)
        if ejection is None:
            return
        cluster.next_sweep = min(cluster.next_sweep, ejection.until)
        seconds = ejection.until - now
        self.runtime.emit(lambda: EndpointEjected(now, cluster.name, host.address, ejection.reason, seconds))

    def _retry(self, outcome: Outcome, verdict: Classification, number: int, now: float) -> tuple[float | None, str]:
        """(Seconds to back off, the condition that asks for the retry), or (None, "") when there is none to be."""
        rules = self.rules
        if rules is None:
            return None, ""
        reason = rules.reason(outcome, verdict)
        if not reason:
            return None, ""
        if outcome.request_sent and not self.replayable:
            return self._not_retried("not-replayable")
        stats = self.cluster.stats
        if number > rules.num_retries:
            stats["upstream_rq_retry_limit_exceeded"].add()
            self.info.flag = ResponseFlag.URX
            return self._not_retried("retry-limit")
        delay = backoff(number, rules.base_interval, rules.max_interval, self.runtime.rng)
        if outcome.grpc_status is not None and (asked := outcome.header(PUSHBACK)) is not None:
            pushed = parse_pushback(asked)
            if pushed is None:
                return self._not_retried("pushback")
            delay = pushed
        if self.deadline is not None and now + delay >= self.deadline:
            return self._not_retried("deadline")
        if not admit_retry(self.load, self.thresholds, self):
            stats["upstream_rq_retry_overflow"].add()
            return self._not_retried("budget")
        stats["upstream_rq_retry"].add()
        return delay, reason

    def _unseen(self, outcome: Outcome) -> bool:
        """Whether a gRPC server said that no application has seen the call: then it is sent once more whatever the
        policy, as every gRPC client does (gRFC A6, transparent retries), or a server that leaves would fail calls.
        """
        if outcome.grpc_status is None or outcome.failure is not Failure.REFUSED_STREAM:
            return False
        if self.transparent or not self.replayable:
            return False
        self.transparent = True
        self.info.flag, self.info.why_not_retried = None, ""
        return True

    def _not_retried(self, why: str) -> tuple[None, str]:
        self.info.why_not_retried = why
        return None, ""

    def _commit(self, outcome: Outcome, verdict: Classification, number: int) -> Commit:
        if number > 1 and self.rules is not None and not self.rules.reason(outcome, verdict):
            self.cluster.stats["upstream_rq_retry_success"].add()
        untouched = self.share.response_headers is None and self.set_cookie is None
        return Commit(outcome, self.info, None if untouched else self._response_headers(outcome))

    def _response_headers(self, outcome: Outcome) -> list[tuple[bytes, bytes]]:
        """The response headers with the route's mutations and the cookie of a cookie hash policy."""
        mutate = self.share.response_headers
        headers = list(outcome.headers or ())
        if self.set_cookie is not None:
            headers.append((b"set-cookie", self.set_cookie.encode("latin-1")))
        return headers if mutate is None else mutate(headers, self.upstream)

    def _finished(self, host: Host, outcome: Outcome, end: BodyEnd) -> None:
        """The body has ended. A body that breaks is a fault of the endpoint, though its headers were fine; one that
        outlives the call's deadline is not: the caller may be slow, or the stream long.
        """
        if end.failure is _TIMEOUT:
            self.cluster.stats["upstream_rq_timeout"].add()
            self.info.flag = self.info.flag or ResponseFlag.UT
        elif end.failure is not None and end.failure is not Failure.LOCAL:
            broken = Outcome(failure=end.failure)
            broken.at = end.at
            self._judge(host, broken)
            self.info.flag = self.info.flag or classify(broken).flag
        elif end.grpc_status is not None:
            trailers = Outcome(outcome.status, grpc_status=end.grpc_status)
            trailers.at = end.at
            self._judge(host, trailers)
        if outcome.grpc_status is not None:
            self.info.grpc_status = grpc_status.ended(outcome.grpc_status, end.grpc_status, self.info.flag)
        if self.runtime.observers:
            self._ended(end.at, outcome.status, self.info.flag)

    def _give_back(self, start: Start) -> None:
        self.load.requests.pop(start, None)
        start.host.cell.live.pop(start, None)
        permit, breaker = self.permit, self.cluster.breaker
        if permit is not None and breaker is not None:
            self.permit = None
            breaker.release(permit)

    # ------------------------------------------------------------------ how it ends

    def _exhausted(self, outcome: Outcome, verdict: Classification, now: float) -> Fail:
        """No response, and no further attempt."""
        flag = verdict.flag or ResponseFlag.UF
        reason = str(outcome.error) if outcome.error else (outcome.failure or Failure.LOCAL).value
        if self.info.flag is ResponseFlag.URX and self.info.attempts > 1:
            reason += f" (retry limit reached, {ResponseFlag.URX})"
        return self._fail(now, flag, reason, outcome=outcome)

    def _fail(
        self, now: float, flag: ResponseFlag, reason: str, open_circuit: bool = False, outcome: Outcome | None = None
    ) -> Fail:
        info = self.info
        info.flag, info.grpc_status = flag, grpc_status.failed(self.head, flag, outcome)
        self._ended(now, None, flag)
        failure = CallFailure(flag, reason, info.route, info.cluster, info.endpoint, info.attempts, open_circuit)
        return Fail(failure, outcome)

    def _note(self, start: Start, outcome: Outcome, sent: float, reason: str) -> None:
        result = outcome.failure.value if outcome.failure is not None else outcome.status or 0
        cluster, address = self.cluster.name, start.host.address
        self.runtime.emit(
            lambda: AttemptEnded(outcome.at, cluster, address, start.attempt, result, outcome.at - sent, reason)
        )

    def _ended(self, now: float, status: int | None, flag: ResponseFlag | None) -> None:
        if self.runtime.observers:
            head, info, took = self.head, self.info, now - self.began
            self.runtime.emit(
                lambda: CallEnded(now, info, head.method, head.authority, head.path_only, status, flag, took)
            )


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
