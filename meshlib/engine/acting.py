"""What a route does with its attempts beside making them: copies of the request, redirects that the mesh follows,
sticky sessions.

The attempts know nothing of it. Whoever looks on from outside sees the first attempt begin, which is when a copy is
due, and the response that would be the caller's, which is when a redirect is. Routes without any of it never come
here.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from meshlib.balancing.base import Host
from meshlib.engine.actions import Actions
from meshlib.engine.attempt import Attempts
from meshlib.engine.commands import Abandoned, Command, Commit, Discard, Launch, Listen, Mirror, Start
from meshlib.engine.decision import Decision, Forward, decide
from meshlib.engine.judging import sweep
from meshlib.engine.plan import Plan
from meshlib.engine.requested import RequestedAttempts
from meshlib.engine.session import Session, choose
from meshlib.engine.table import VirtualHostPlan
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.model.route import RouteAction
from meshlib.routing.internal_redirect import NO_ROUTE, NOT_REPLAYABLE, PREDICATE, InternalRedirects, drops_body


@dataclass(slots=True)
class Redirected:
    """A call that goes on elsewhere: what it asks there, how often that has happened, by which pairs of routes. `began`
    is when the caller called.
    """

    head: RequestHead
    host: VirtualHostPlan
    decision: Decision
    count: int
    seen: frozenset[tuple[str, str]]
    bodiless: bool
    began: float
    now: float = 0.0


def act(
    call: Attempts, actions: Actions, plan: Plan, host: VirtualHostPlan, before: Redirected | None
) -> Generator[Command, Any, Redirected | None]:
    """The attempts of a call, with the route's actions; where it goes on, None where it has ended. `before` is what it
    was redirected by the last time.
    """
    start: Start | None = None
    redirects = _Redirects(actions.redirects, plan, host, before)
    run = call.flow()
    try:
        command = next(run)
        if before is not None:
            call.began = before.began  # only now: the attempts have begun where they were to
        first = command.start if isinstance(command, Launch) else command
        if actions.mirrors and isinstance(first, Start):
            yield from _mirrors(actions, call, first, plan)
        while True:
            if isinstance(command, Start):
                start = command
            elif start is not None and isinstance(command, Commit):
                redirected = redirects.committed(call, command, start)
                if redirected is not None:
                    run.close()  # gives back what the attempt held; that the call has ended is not told yet
                    redirected.now = yield Discard(command.outcome, redirected.bodiless)
                    return redirected
            answer = yield command
            if isinstance(command, Listen) and isinstance(answer, tuple):
                start = answer[0]  # of attempts that overlap, the one that has ended
            command = run.send(answer)
    except StopIteration:
        return None
    except Abandoned as gone:
        run.throw(gone)
        raise
    finally:
        run.close()


class StickyAttempts(RequestedAttempts):
    """Attempts of which the first goes where the caller's session wants it."""

    __slots__ = ("session",)

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        actions = self.share.actions
        sessions = () if actions is None else actions.sessions
        self.session = Session(sessions, self.head, self.runtime.wall_clock())

    def pick(self, now: float) -> Host | None:
        """The session's endpoint, if its health permits; else any, or with a strict session none."""
        session = self.session
        if not session.wanted or self.tried:
            return super().pick(now)
        if now >= self.cluster.next_sweep:
            sweep(self.runtime, self.cluster, now)
        host = choose(self.cluster, session.wanted)
        return super().pick(now) if host is None and not session.strict else host

    def tell(self, commit: Commit, start: Start) -> None:
        """Have the response say which endpoint it is from."""
        told = self.session.headers(start.host.address)
        if told:
            headers = commit.outcome.headers if commit.headers is None else commit.headers
            commit.headers = [*(headers or ()), *told]


# ---------------------------------------------------------------------------------------------------------- mirroring


def _mirrors(actions: Actions, call: Attempts, start: Start, plan: Plan) -> Generator[Command, Any, None]:
    """The copies of a request whose first attempt is about to begin. A cluster that does not exist gets none."""
    sample = call.runtime.rng.random()  # one for all of them, as in Envoy: equal shares copy the same requests
    for mirror in actions.mirrors:
        if sample >= mirror.fraction:
            continue
        route = mirror.route
        share = route.shares[0]
        cluster = plan.clusters.get(route.cluster_name(share, call.head))
        if cluster is None or cluster.passthrough or not isinstance(route.action, RouteAction):
            continue
        head = mirror.shadow(start.head)
        if call.head.says_timeout:  # as its protocol does, so that no header has to
            head = _as(call.head, head)
        decision = Forward(route, route.action, share, cluster)
        yield Mirror(decision, head, call.deadline, call.cluster, actions.body_limit, mirror.traced)


def _as(own: RequestHead, other: RequestHead) -> RequestHead:
    """The other request as one of the caller's: of its class, with all that goes with the call."""
    made = own.like(other.path, other.headers)
    made.method, made.scheme, made.authority = other.method, other.scheme, other.authority
    return made


# ---------------------------------------------------------------------------------------------------------- redirects


class _Redirects:
    """The redirects that a route has the mesh follow, for one call."""

    __slots__ = ("_before", "_host", "_plan", "_redirects")

    def __init__(
        self, redirects: InternalRedirects | None, plan: Plan, host: VirtualHostPlan, before: Redirected | None
    ) -> None:
        self._redirects = redirects
        self._plan = plan
        self._host = host
        self._before = before

    def committed(self, call: Attempts, commit: Commit, start: Start) -> Redirected | None:
        """A response has come: where it sends the call, or else what it tells the caller of its session."""
        redirected = self._where(call, commit.outcome, start)
        if redirected is None and isinstance(call, StickyAttempts):
            call.tell(commit, start)
        return redirected

    def _where(self, call: Attempts, outcome: Outcome, start: Start) -> Redirected | None:
        redirects = self._redirects
        if redirects is None or outcome.status not in redirects.codes:
            return None
        found = self._target(redirects, call, outcome, start)
        stats = call.cluster.stats
        if isinstance(found, Redirected):
            stats["upstream_internal_redirect_succeeded_total"].add()
            return found
        stats["upstream_internal_redirect_failed_total"].add()
        call.info.why_not_redirected = found
        return None

    def _target(self, redirects: InternalRedirects, call: Attempts, outcome: Outcome, start: Start) -> Redirected | str:
        if not call.replayable:
            return NOT_REPLAYABLE
        before = self._before
        followed, seen = (0, frozenset[tuple[str, str]]()) if before is None else (before.count, before.seen)
        target = redirects.target(start.head, outcome, followed)
        if isinstance(target, str):
            return target
        # Of the caller's class, which carries the call's metadata and knows its protocol; what was sent is a plain one.
        target = _as(call.head, target)
        there = self._host.source.find(target.authority)
        decision = None if there is None else decide(self._plan, there, target, call.runtime.rng)
        if there is None or decision is None or decision.route is None:
            return NO_ROUTE
        name, to = call.decision.route.config.name, decision.route.config.name
        if not redirects.accepts(name, start.head.scheme, target, to, seen):
            return PREDICATE
        bodiless = drops_body(start.head, target)
        return Redirected(target, there, decision, followed + 1, seen | {(name, to)}, bodiless, call.began)
