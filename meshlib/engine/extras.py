"""What few routes use, and few requests ask for: looked at only where there is any of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meshlib.engine.circuits import RouteCircuit
from meshlib.model.filters import RouterFilter
from meshlib.model.matchers import HeaderMatcher, Present
from meshlib.model.request import RequestHead
from meshlib.model.retry import GrpcTimeout, RetryPolicy
from meshlib.model.route import RouteAction, VirtualHost
from meshlib.policy.asked import Asked, asked, consumed, without
from meshlib.policy.deadline import parse_grpc_timeout
from meshlib.policy.retry import HeaderTest, RetryRules
from meshlib.routing.matchers import HeaderPredicate
from meshlib.telemetry.grpc_names import is_grpc

if TYPE_CHECKING:
    from meshlib.engine.route import RoutePlan


@dataclass(frozen=True, slots=True)
class Extras:
    """`request_tests`: of a policy's `retriable_request_headers`, one must hold for there to be retries at all; `muted`
    are the rules without them. `body_limit` in bytes. `previous_priorities`: the update frequency. `circuit` is the
    route's circuit breaker.
    """

    hedges: bool = False
    grpc_timeout: GrpcTimeout | None = None
    request_tests: tuple[HeaderTest, ...] = ()
    muted: RetryRules | None = None
    body_limit: int | None = None
    counts_in_response: bool = False
    tells_timeout_retries: bool = False
    previous_priorities: int | None = None
    avoids_labels: bool = False
    respects_expected_timeout: bool = False
    strict_headers: tuple[str, ...] = ()
    circuit: RouteCircuit | None = None


NONE = Extras()


def compile_extras(
    action: RouteAction,
    host: VirtualHost,
    rules: RetryRules | None,
    body_limit: int | None,
    router: RouterFilter,
    circuit: RouteCircuit | None = None,
) -> Extras | None:
    """The extras of a route, None when it has none."""
    policy = rules.policy if rules is not None else RetryPolicy()
    tests = header_tests(policy.retriable_request_headers)
    hedges = action.hedge_on_per_try_timeout
    found = Extras(
        hedges=host.hedge_on_per_try_timeout if hedges is None else hedges,
        grpc_timeout=action.grpc_timeout,
        request_tests=tests,
        muted=RetryRules(replace(policy, retry_on=())) if tests else None,
        body_limit=body_limit,
        counts_in_response=host.include_attempt_count_in_response,
        tells_timeout_retries=host.include_is_timeout_retry_header,
        previous_priorities=policy.previous_priorities,
        avoids_labels=policy.omit_canary_hosts or bool(policy.omit_host_metadata),
        respects_expected_timeout=router.respect_expected_rq_timeout,
        strict_headers=router.strict_check_headers,
        circuit=circuit,
    )
    return None if found == NONE else found


def header_tests(matchers: tuple[HeaderMatcher, ...]) -> tuple[HeaderTest, ...]:
    """Header matchers, compiled."""
    return tuple(HeaderPredicate(matcher) for matcher in matchers)


def heard(head: RequestHead, *, trusted: bool = True) -> tuple[RequestHead, Asked | None]:
    """The request without the headers that are for the mesh, and what they ask for; nothing where nobody trusts them.

    The upstream sees none of these headers either way.
    """
    said = consumed(head.headers)
    if not said:
        return head, None
    bare = head.like(head.path, without(head.headers))
    return bare, asked(said) if trusted else None


def rules_for(rules: RetryRules | None, extras: Extras, wanted: Asked | None, head: RequestHead) -> RetryRules | None:
    """The retry rules of one request: the route's, with what the request asks for on top, unless its headers forbid
    retries (`retriable_request_headers`).
    """
    muted = bool(extras.request_tests) and not any(test(head) for test in extras.request_tests)
    if wanted is None or not wanted.changes_retries:
        return extras.muted if muted else rules
    policy = rules.policy if rules is not None else RetryPolicy()
    per_try = wanted.per_try_timeout
    words = () if muted else (*policy.retry_on, *wanted.retry_on)
    more = header_tests(tuple(HeaderMatcher(name, Present()) for name in wanted.header_names))
    return RetryRules(
        replace(
            policy,
            retry_on=words,
            num_retries=wanted.max_retries if words and wanted.max_retries is not None else policy.num_retries,
            retriable_status_codes=(*policy.retriable_status_codes, *wanted.status_codes),
            per_try_timeout=policy.per_try_timeout if per_try is None else per_try or None,
        ),
        (*(rules.headers if rules is not None else ()), *more),
    )


def timeout_for(
    route: RoutePlan, extras: Extras, wanted: Asked | None, head: RequestHead, left: float | None
) -> float | None:
    """Seconds the call may take, from the route and from what the request asks for; None: no bound. `left` is what the
    caller has left.
    """
    action, stream = route.action, route.stream_timeout
    whole = None
    if isinstance(action, RouteAction) and action.max_stream_duration is None and not head.streams:
        whole = action.timeout
    grpc = extras.grpc_timeout
    if grpc is not None and is_grpc(head):
        own = left if head.says_timeout else parse_grpc_timeout(head.get("grpc-timeout"))
        if grpc.instead_of_route:
            whole = None if head.streams else _capped(own or 0.0, grpc) or None
        elif own is not None:
            stream = _bounded(own, grpc)
    if wanted is not None:
        expected = wanted.expected_timeout if extras.respects_expected_timeout else None
        said = wanted.timeout if expected is None else expected
        if said is not None and not head.streams:
            whole = said or None
        if wanted.max_stream_duration:
            stream = wanted.max_stream_duration if stream is None else min(stream, wanted.max_stream_duration)
    return min((limit for limit in (whole, stream) if limit is not None), default=None)


def _capped(own: float, grpc: GrpcTimeout) -> float:
    """`max_grpc_timeout`: 0 is for ever, in what is given and in what comes out."""
    if grpc.offset < own:
        own -= grpc.offset
    if grpc.maximum and (not own or own > grpc.maximum):
        return grpc.maximum
    return own


def _bounded(own: float, grpc: GrpcTimeout) -> float:
    """`grpc_timeout_header_max`: what comes out is a bound, even if it is 0."""
    if not own or (grpc.maximum and own > grpc.maximum):
        own = grpc.maximum
    return max(0.0, own - grpc.offset)


def body_size(head: RequestHead) -> int:
    """The bytes of a request's body as its `content-length` says; 0 when it does not."""
    said = head.get("content-length") or ""
    return int(said) if said.isascii() and said.isdigit() and len(said) <= 18 else 0
