"""What is known of a call, for the operators of header values and bodies: gathered only where one asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.routing.facts import CallFacts

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts
    from meshlib.engine.commands import Start
    from meshlib.engine.decision import Answer, Forward
    from meshlib.model.outcome import Outcome

Clock = Callable[[], float]
"""Unix time."""


def of_request(decision: Forward, clock: Clock) -> CallFacts:
    """Before the first attempt: no endpoint is chosen yet. The attempt that is to come counts, as in Envoy."""
    route, now = decision.route, clock()
    return CallFacts(
        route=route.config.name,
        route_metadata=route.config.metadata,
        virtual_host_metadata=route.virtual_host.metadata,
        cluster=decision.cluster_name,
        cluster_metadata=decision.cluster.config.metadata,
        attempts=1,
        started=now,
        now=now,
    )


def of_response(call: Attempts, start: Start, outcome: Outcome) -> CallFacts:
    """At the response headers of the attempt that is committed."""
    decision, route = call.decision, call.decision.route
    hosts = [*(host for host in call.tried if host is not start.host), start.host]
    now, took = call.runtime.wall_clock(), outcome.at - call.began
    return CallFacts(
        route=route.config.name,
        route_metadata=route.config.metadata,
        virtual_host_metadata=route.virtual_host.metadata,
        cluster=decision.cluster_name,
        cluster_metadata=decision.cluster.config.metadata,
        attempted=[(host.address, host.endpoint.hostname) for host in hosts],
        endpoint_metadata=start.host.endpoint.metadata,
        attempts=start.attempt,
        status=outcome.status or 0,
        grpc_status=outcome.grpc_status,
        details="via_upstream",
        flag=call.info.flag or "",
        started=now - took,
        now=now,
        elapsed=took,
        first_byte=took,
    )


def of_answer(decision: Answer, clock: Clock) -> CallFacts:
    """Of a direct response or a redirect."""
    route, now = decision.route, clock()
    return CallFacts(
        route=route.config.name,
        route_metadata=route.config.metadata,
        virtual_host_metadata=route.virtual_host.metadata,
        details="direct_response",
        body=decision.body.decode("latin-1"),
        started=now,
        now=now,
    )


def no_clock() -> float:
    """For those who have no clock: dates have no value then."""
    return 0.0
