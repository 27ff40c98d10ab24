"""Why an endpoint was chosen, in a sentence, from the policy and what it looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.balancing.base import Host
from meshlib.engine.cluster import ClusterPlan
from meshlib.explain.explanation import Explanation
from meshlib.model.lb import (
    ClientSideWeightedRoundRobin,
    LbPolicy,
    LeastRequest,
    Maglev,
    PeakEwma,
    PickFirst,
    Random,
    RingHash,
    RoundRobin,
    UserLbPolicy,
)


def chosen_because(result: Explanation, cluster: ClusterPlan, host: Host, *, asked: bool, session: bool) -> str:
    """Where it stands first (priority, panic, alone), then what the policy says. `asked`: the request names the
    endpoint; `session`: its session does.
    """
    if session:
        return "the request's session names it, and its health allows it"
    if asked:
        return "the request names it (override host), whatever its health"
    usable = _usable(result, cluster, host)
    parts = list(_place(result, host))
    if len(usable) == 1:
        return ", ".join([*parts, f"the only {host.availability} endpoint"])
    policy = cluster.config.lb_policy
    say = _SAYS.get(type(policy), _round_robin)
    return ", ".join([*parts, say(policy, result, usable)])


def _usable(result: Explanation, cluster: ClusterPlan, host: Host) -> list[Host]:
    """What it was chosen among: the endpoints of its priority, and subset, that are in the same health."""
    same = [
        other
        for other in (cluster.aggregate or cluster.balancer).hosts
        if other.availability == host.availability and other.priority == host.priority
    ]
    if result.balancing is None:
        return same
    told = {entry["address"] for priority in result.balancing["priorities"] for entry in priority["endpoints"]}
    return [other for other in same if other.address in told]


def _place(result: Explanation, host: Host) -> Any:
    priorities = result.balancing["priorities"] if result.balancing is not None else []
    held = (entry for entry in priorities if any(one["address"] == host.address for one in entry["endpoints"]))
    found = next(held, None)  # of an aggregate cluster it is one of the row's, and not of the host's own cluster's
    if found is not None and len(priorities) > 1:
        load = found["degraded_load"] if host.availability == "degraded" else found["healthy_load"]
        yield f"priority {found['priority']} takes {load} % of the load"
    if found is not None and found["panic"]:
        yield "in panic, so health does not count"


def _weighed(hosts: list[Host]) -> bool:
    return len({host.weight for host in hosts}) > 1


def _round_robin(policy: LbPolicy, result: Explanation, hosts: list[Host]) -> str:
    return "its turn, by weight" if _weighed(hosts) else "its turn"


def _least_request(policy: LeastRequest, result: Explanation, hosts: list[Host]) -> str:
    if _weighed(hosts):
        return f"its turn, by weight / (active requests + 1) ** {policy.active_request_bias:g}"
    if policy.full_scan:
        return f"no other of {len(hosts)} has fewer active requests"
    return f"the fewest active requests of {policy.choice_count} drawn"


def _by_hash(policy: RingHash | Maglev, result: Explanation, hosts: list[Host]) -> str:
    what = "ring" if isinstance(policy, RingHash) else "Maglev table"
    if result.request_hash is None:
        return f"a random place of the {what}: the request has no hash"
    return f"the place of the request's hash in the {what}"


_SAYS: dict[type[LbPolicy], Callable[[Any, Explanation, list[Host]], str]] = {
    RoundRobin: _round_robin,
    LeastRequest: _least_request,
    RingHash: _by_hash,
    Maglev: _by_hash,
    Random: lambda policy, result, hosts: f"drawn at random of {len(hosts)}",
    PickFirst: lambda policy, result, hosts: "the first that can be reached",
    PeakEwma: lambda policy, result, hosts: "the shorter expected wait of two drawn",
    ClientSideWeightedRoundRobin: lambda policy, result, hosts: "its turn, by the weights its load reports give",
    UserLbPolicy: lambda policy, result, hosts: f"the choice of balancer {policy.name!r}",
}
