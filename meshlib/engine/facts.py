"""What is known of a call, for the operators of header values and bodies: gathered only where one asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.model.metadata import EMPTY_METADATA
from meshlib.routing.facts import CallFacts

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts
    from meshlib.engine.commands import Start
    from meshlib.engine.decision import Answer, Forward
    from meshlib.model.outcome import Outcome

Clock = Callable[[], float]
"""Unix time."""


def of_request(decision: Forward | Answer, clock: Clock, status: int = 0) -> CallFacts:
    """Before the first attempt: no endpoint is chosen yet. The attempt that is to come counts, as in Envoy."""
    route, cluster, now = decision.route, decision.cluster, clock()
    return CallFacts(
        route=route.config.name,
        route_metadata=route.config.metadata,
        virtual_host_metadata=route.virtual_host.metadata,
        cluster=decision.cluster_name,
        cluster_metadata=EMPTY_METADATA if cluster is None else cluster.config.metadata,
        attempts=1 if cluster is not None else 0,
        status=status,
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
        flag=",".join(call.info.flags),
        started=now - took,
        now=now,
        elapsed=took,
        first_byte=took,
    )


def of_answer(decision: Answer, clock: Clock, status: int = 0, body: str = "") -> CallFacts:
    """Of a direct response or a redirect. The route's own headers see neither its status nor its body, as in Envoy."""
    route, now = decision.route, clock()
    return CallFacts(
        route=route.config.name,
        route_metadata=route.config.metadata,
        virtual_host_metadata=route.virtual_host.metadata,
        status=status,
        details="direct_response",
        body=body,
        started=now,
        now=now,
    )


def no_clock() -> float:
    """For those who have no clock: dates have no value then."""
    return 0.0
