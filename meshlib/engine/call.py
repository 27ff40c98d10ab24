"""The call flow: every stage of a client call, in order, each with the reason why it stands where it stands.

One generator per call. It yields commands (`meshlib.engine.commands`) and is sent what came of them; it lives until the
response body has ended, because load ends there. Closing it at any moment (cancellation, a dropped response) gives back
everything it holds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from meshlib.balancing.base import Host
from meshlib.engine import grpc_status
from meshlib.engine.acting import Redirected, StickyAttempts, act
from meshlib.engine.actions import NO_ACTIONS, Actions
from meshlib.engine.attempt import Attempts
from meshlib.engine.commands import (
    Abandoned,
    CallInfo,
    Command,
    Fail,
    Fetch,
    Flow,
    Mirror,
    PassThrough,
    Query,
    Replayable,
    Reply,
    Wait,
)
from meshlib.engine.decision import (
    Answer,
    Decision,
    Forward,
    Refusal,
    decide,
    decide_once,
    prepared,
    with_content_type,
    with_route_headers,
)
from meshlib.engine.ends import Admit, Admitted, followed
from meshlib.engine.events import CallEnded, RateLimited
from meshlib.engine.filters import LocalReply, Verdict
from meshlib.engine.lanes import entered
from meshlib.engine.pauses import Consult, Delay, Pause
from meshlib.engine.plan import Plan
from meshlib.engine.requested import attempts_for
from meshlib.engine.runtime import Runtime
from meshlib.engine.table import VirtualHostPlan
from meshlib.engine.traced import traced
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.policy.shared_limit import SharedVerdict
from meshlib.telemetry.grpc_names import is_grpc

_NONE: tuple[()] = ()
MIRROR_TIMEOUT = 15.0
"""Seconds that a copy of a request without a deadline may take: nobody would ever give it up."""


def call_flow(
    runtime: Runtime,
    head: RequestHead,
    now: float,
    *,
    deadline: float | None = None,
    replayable: Replayable = True,
    source_ip: str = "",
    stand_in: Host | None = None,
) -> Flow:
    """One call of `head`, begun at `now`. `deadline` is the inherited or the caller's own, whichever is earlier;
    `replayable` says whether the body can be sent again. `stand_in` is what the attempts run on in a cluster without
    endpoints, for callers that need none (a guarded function); without it such a cluster is UH.
    """
    lanes, tracing = runtime.plan.lanes, runtime.tracing
    if lanes is not None:  # first, because services further on must hear of it whoever serves the call
        head = entered(head, lanes, source_ip, runtime.wall_clock(), runtime.rng)
    if tracing is None:
        return _stages(runtime, head, now, deadline, replayable, source_ip, stand_in)
    head, trace = tracing.call(head, now, on_wire=stand_in is None)
    flow = _stages(runtime, head, now, deadline, replayable, source_ip, stand_in)
    return flow if trace is None else traced(flow, trace, now)


def mirror_flow(runtime: Runtime, mirror: Mirror, now: float) -> Flow:
    """One call that a `Mirror` command asks for, begun at `now`: what it is and where it goes has been decided."""
    tracing = runtime.tracing
    if tracing is None or not mirror.traced:
        return _copy(runtime, mirror, mirror.head, now)
    head, trace = tracing.call(mirror.head, now)
    flow = _copy(runtime, mirror, head, now)
    return flow if trace is None else traced(flow, trace, now)


def _copy(runtime: Runtime, mirror: Mirror, head: RequestHead, now: float) -> Flow:
    """Stages 5 and 6 of a copy, which no filter sees."""
    decision, cluster = mirror.decision, mirror.decision.cluster
    info = CallInfo(decision.route.virtual_host.name, decision.route.label, cluster.name)
    deadline = now + MIRROR_TIMEOUT if mirror.deadline is None else mirror.deadline
    if cluster.guarded:
        refused, now, decision = yield from _protect(runtime, decision, head, now, deadline, info)
        if refused is not None:
            yield refused
            return
    yield from attempts_for(decision)(runtime, decision, head, info, now, deadline, True, "").flow()


def _stages(  # noqa: C901, PLR0912  the stages in their order: a function for each would cost as much
    runtime: Runtime,
    head: RequestHead,
    now: float,
    deadline: float | None,
    replayable: Replayable,
    source_ip: str,
    stand_in: Host | None,
    redirected: Redirected | None = None,
    *,
    admitted: Admitted | None = None,
) -> Flow:
    # 1 Configuration, before anything: there is nothing to decide with until it is there.
    plan = runtime.plan
    begun = redirected if admitted is None else admitted
    host = plan.outbound.find(head.scheme, head.authority) if begun is None else begun.host
    if host is None:
        host, now = yield from _fetched(runtime, head, now, deadline)
        if host is None:
            yield _unknown(runtime, head, now)
            return
        plan = runtime.plan
    # 2 Route, before the filters: which filters run, and how, is the route's say.
    choose = decide_once if head.shared else decide
    decision = choose(plan, host, head, runtime.rng) if begun is None else begun.decision
    info = _info(host, decision, redirected) if admitted is None else admitted.info
    if isinstance(decision, Refusal):
        yield _failed(runtime, head, now, decision.flag, decision.reason, info, decision.status)
        return
    # 3 Filters, before the answer and before balancing: a refused request must cost no upstream anything.
    filters = decision.share.filters if admitted is None else admitted.filters
    if runtime.faults.added and admitted is None:  # from code, whatever the configuration says
        filters = runtime.faults.before(filters, head.authority, decision.cluster_name)
    for index, item in enumerate(filters) if filters else _NONE:
        verdict = item.on_request(head, now, runtime.rng)
        if verdict is not None:
            refusal, now = yield from _settled(verdict, runtime, head, now, deadline, info)
            if isinstance(refusal, Admit):  # it follows the rest of the call from outside
                left = Admitted(host, decision, info, filters[index + 1 :])
                head = refusal.head or head
                info.response_limit = refusal.slowest(info.response_limit)
                rest = _stages(runtime, head, now, deadline, replayable, source_ip, stand_in, redirected, admitted=left)
                yield from followed(refusal, rest, head, now)
                return
            if refusal is not None:
                if isinstance(refusal, LocalReply):
                    yield _local_reply(runtime, decision, head, now, refusal, info)
                else:
                    yield refusal
                return
    if decision.share.prepare is not None:
        head = prepared(decision, head, runtime.wall_clock)
    # 4 Redirects and direct responses: the router's own answers, the last filter of the chain.
    if isinstance(decision, Answer) or decision.cluster.passthrough:
        yield _reply(runtime, decision, head, now, info) if isinstance(decision, Answer) else PassThrough(head)
        return
    # 5 What protects the cluster, whatever route led to it: limits from code, then the control plane's drops.
    attempts_of: type[Attempts] = Attempts
    if decision.cluster.guarded:
        refused, now, decision = yield from _protect(runtime, decision, head, now, deadline, info)
        if refused is not None:
            yield refused
            return
        attempts_of = attempts_for(decision)
    # 6 Attempts, and what few routes do with them: sticky sessions, copies, redirects (which begin at the route).
    actions = decision.share.actions
    if actions is None and redirected is None:
        attempts = attempts_of(runtime, decision, head, info, now, deadline, replayable, source_ip, stand_in=stand_in)
        yield from attempts.run() if attempts.extras is None and not attempts.hedges else attempts.flow()
        return
    actions = actions or NO_ACTIONS
    attempts_of = StickyAttempts if actions.sessions else attempts_of
    attempts = attempts_of(runtime, decision, head, info, now, deadline, replayable, source_ip, stand_in=stand_in)
    yield from _acted(attempts, actions, plan, host, redirected, deadline, source_ip)


def _acted(
    attempts: Attempts,
    actions: Actions,
    plan: Plan,
    host: VirtualHostPlan,
    redirected: Redirected | None,
    deadline: float | None,
    source_ip: str,
) -> Flow:
    """The attempts with the route's actions, and what a redirect makes of the call."""
    again = yield from act(attempts, actions, plan, host, redirected)
    if again is not None:
        runtime, replayable = attempts.runtime, attempts.replayable or again.bodiless
        yield from _stages(runtime, again.head, again.now, deadline, replayable, source_ip, attempts.stand_in, again)


def _fetched(
    runtime: Runtime, head: RequestHead, now: float, deadline: float | None
) -> Generator[Command, Any, tuple[VirtualHostPlan | None, float]]:
    """What speaks for an authority that nothing speaks for yet, once it has been waited for."""
    if not runtime.plan.may_come(head.scheme, head.authority):
        return None, now
    limit = now + runtime.fetch_timeout
    wanted = Fetch(head.authority, limit if deadline is None else min(limit, deadline))
    now = yield from _asked(wanted, runtime, head, now, CallInfo())
    return runtime.plan.outbound.find(head.scheme, head.authority), now


def _protect(
    runtime: Runtime, decision: Forward, head: RequestHead, now: float, deadline: float | None, info: CallInfo
) -> Generator[Command, Any, tuple[Fail | None, float, Forward]]:
    """A refusal, if there is one, what time it is after all that was asked, and the decision by the newest plan."""
    began, cluster = now, decision.cluster
    if cluster.awaited and runtime.first_lookup is not None:
        until = now + runtime.fetch_timeout
        wanted = runtime.first_lookup(cluster.name, until if deadline is None else min(until, deadline))
        _, now = yield from _asked(Query(wanted), runtime, head, now, info)
        cluster = runtime.plan.clusters.get(cluster.name, cluster)
        decision = Forward(decision.route, decision.action, decision.share, cluster)
    for limit in cluster.limits:
        verdict: SharedVerdict
        verdict, now = yield from _asked(Query(limit.question(head)), runtime, head, began, info)
        if not verdict.allowed:
            _tell_limited(runtime, now, limit.name, head)
            flag = verdict.flag or ResponseFlag.RL
            return _failed(runtime, head, now, flag, f"rate limit {limit.name!r} refused the call", info), now, decision
    for drop in cluster.drops:
        if runtime.rng.random() < drop.fraction:
            reason = f"drop_overload category {drop.category!r}"
            return _failed(runtime, head, now, ResponseFlag.DO, reason, info), now, decision
    return None, now, decision


def _settled(
    verdict: Verdict, runtime: Runtime, head: RequestHead, now: float, deadline: float | None, info: CallInfo
) -> Generator[Command, Any, tuple[LocalReply | Fail | Admit | None, float]]:
    """A filter's verdict after the pauses it wanted, and what time it is then. A deadline that passes meanwhile ends
    the call: whoever waits for a filter has not been balanced yet.
    """
    began = now
    while isinstance(verdict, Pause):
        pause, answer = verdict, None
        try:
            if isinstance(pause, Delay):
                info.delayed = info.delayed or pause.injected
                left = pause.seconds if deadline is None else min(pause.seconds, deadline - now)
                now = yield from _asked(Wait(max(0.0, left)), runtime, head, began, info)
            elif isinstance(pause, Consult):
                answer, now = yield from _asked(Query(pause.question), runtime, head, began, info)
        except BaseException:
            pause.give_up()
            raise
        if deadline is not None and now >= deadline:
            pause.give_up()
            reason = "the deadline passed while a filter held the request"
            return _failed(runtime, head, now, ResponseFlag.UT, reason, info), now
        verdict = pause.then(answer, now)
    return verdict, now


def _asked(
    command: Fetch | Query | Wait, runtime: Runtime, head: RequestHead, began: float, info: CallInfo
) -> Generator[Command, Any, Any]:
    """What the driver answers. A caller that goes away before is told of, as one that goes away in an attempt is."""
    try:
        return (yield command)
    except Abandoned as gone:
        flag, at = ResponseFlag.DC, gone.at
        info.flag, info.grpc_status = flag, grpc_status.failed(head, flag)
        runtime.emit(lambda: CallEnded(at, info, head.method, head.authority, head.path_only, None, flag, at - began))
        raise


def _info(host: VirtualHostPlan, decision: Decision, redirected: Redirected | None) -> CallInfo:
    route = decision.route
    if route is None:
        info = CallInfo(host.table.config.name, "", decision.cluster_name)
    else:  # not the host's name: that of scoped routes stands for the virtual hosts of all scopes
        info = CallInfo(route.virtual_host.name, route.label, decision.cluster_name)
    if redirected is not None:
        info.internal_redirects = redirected.count
    return info


def _unknown(runtime: Runtime, head: RequestHead, now: float) -> PassThrough | Fail:
    """An authority that nothing speaks for: pass through, or refuse, as the mesh was told."""
    if runtime.plan.may_come(head.scheme, head.authority):
        return _failed(
            runtime,
            head,
            now,
            ResponseFlag.NFCF,
            f"no configuration for {head.authority!r} arrived within {runtime.fetch_timeout:g} s",
            CallInfo(),
        )
    if runtime.plan.named(head.scheme, head.authority):
        reason = f"the listener {head.authority!r} has no virtual host for its own name"
        return _failed(runtime, head, now, ResponseFlag.NR, reason, CallInfo())
    denied = runtime.plan.outbound.denied(head.scheme, head.authority)
    if denied:
        reason = f"the control plane has no virtual host {denied!r}"
        return _failed(runtime, head, now, ResponseFlag.NR, reason, CallInfo())
    if runtime.unknown_hosts == "pass_through":
        return PassThrough(head)
    reason = f"no virtual host speaks for {head.authority!r} and unknown hosts are rejected"
    return _failed(runtime, head, now, ResponseFlag.NR, reason, CallInfo())


def _failed(
    runtime: Runtime,
    head: RequestHead,
    now: float,
    flag: ResponseFlag,
    reason: str,
    info: CallInfo,
    status: int = 0,
) -> Fail:
    info.flag, info.grpc_status = flag, grpc_status.failed(head, flag, None, status)
    runtime.emit(lambda: CallEnded(now, info, head.method, head.authority, head.path_only, None, flag, 0.0))
    return Fail(CallFailure(flag, reason, info.route, info.cluster, status=status))


def _local_reply(
    runtime: Runtime, decision: Forward | Answer, head: RequestHead, now: float, reply: LocalReply, info: CallInfo
) -> Reply:
    info.flag = reply.flag
    if reply.flag is ResponseFlag.RL:
        _tell_limited(runtime, now, reply.name, head)
    headers = with_route_headers(decision, reply, head, runtime.wall_clock, ",".join(info.flags))
    if reply.body and not is_grpc(head):  # of whom the headers are metadata
        headers = with_content_type(headers, b"text/plain")
    return _answered(runtime, head, now, Reply(reply.status, headers, reply.body, info, reply.grpc_status))


def _tell_limited(runtime: Runtime, now: float, name: str, head: RequestHead) -> None:
    runtime.emit(lambda: RateLimited(now, name, head.path_only))


def _reply(runtime: Runtime, decision: Answer, head: RequestHead, now: float, info: CallInfo) -> Reply:
    headers, body = decision.content(head, runtime.wall_clock)
    return _answered(runtime, head, now, Reply(decision.status, headers, body, info))


def _answered(runtime: Runtime, head: RequestHead, now: float, reply: Reply) -> Reply:
    info = reply.info
    info.grpc_status = grpc_status.answered(head, reply.status, reply.grpc_status)
    runtime.emit(
        lambda: CallEnded(now, info, head.method, head.authority, head.path_only, reply.status, info.flag, 0.0)
    )
    return reply
