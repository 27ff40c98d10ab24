"""Policy type → how its balancer is built. A new policy is one line here and a module that makes a `Balancer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, OneHost
from meshlib.balancing.client_side import client_side_weighted_round_robin
from meshlib.balancing.least_request import least_request
from meshlib.balancing.maglev import maglev, table_entries
from meshlib.balancing.peak_ewma import peak_ewma
from meshlib.balancing.pick_first import pick_first
from meshlib.balancing.random_choice import random_choice
from meshlib.balancing.ring_hash import ring_entries, ring_hash
from meshlib.balancing.round_robin import round_robin
from meshlib.balancing.user import user_balancer
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
from meshlib.state.cells import ClusterState

ENTRIES_PER_HOST = 4  # of a hash table, made in the time one host takes elsewhere, roughly

HostsBuilder = Callable[[Any, Sequence[Host]], Balancer]
SharesBuilder = Callable[[Any, Sequence[Host], Sequence[float], ClusterState], Balancer]


@dataclass(frozen=True, slots=True)
class ByTurn:
    """A policy over a plain set of hosts, at least two; localities are chosen before it."""

    build: HostsBuilder

    def over(self, policy: LbPolicy, hosts: Sequence[Host]) -> Balancer:
        """The balancer for any number of hosts."""
        if len(hosts) > 1 or (hosts and getattr(policy, "slow_start", None) is not None):  # its time begins alone too
            return self.build(policy, hosts)
        return OneHost(hosts[0]) if hosts else NO_HOSTS


@dataclass(frozen=True, slots=True)
class ByHash:
    """A policy that places all hosts of a priority in one table by their shares of the load (they add up to 1), and
    chooses the priority by the request's hash too: Envoy's thread-aware balancers.

    `entries` estimates the size of the table for hosts of these weights, or what it costs to fill it.
    """

    build: SharesBuilder
    entries: Callable[[Any, Sequence[int]], int]


BUILDERS: dict[type[LbPolicy], ByTurn | ByHash] = {
    RoundRobin: ByTurn(round_robin),
    LeastRequest: ByTurn(least_request),
    ClientSideWeightedRoundRobin: ByTurn(client_side_weighted_round_robin),
    PeakEwma: ByTurn(peak_ewma),
    Random: ByTurn(random_choice),
    PickFirst: ByTurn(pick_first),
    UserLbPolicy: ByTurn(user_balancer),
    RingHash: ByHash(ring_hash, ring_entries),
    Maglev: ByHash(maglev, table_entries),
}


def compile_cost(policy: LbPolicy, hosts: Sequence[Host]) -> int:
    """What compiling over these hosts costs, in hosts of a policy without a table."""
    builder = builder_of(policy)
    if isinstance(builder, ByTurn) or not hosts:
        return len(hosts)
    entries = builder.entries(policy, [host.endpoint.weight for host in hosts])
    return max(len(hosts), entries // ENTRIES_PER_HOST)


def goes_by_time(policy: LbPolicy) -> bool:
    """Whether a policy's balancers are `Timed`."""
    slow_start = getattr(policy, "slow_start", None)
    return slow_start is not None or isinstance(policy, (ClientSideWeightedRoundRobin, PeakEwma))


def builder_of(policy: LbPolicy) -> ByTurn | ByHash:
    """The policy's builder; round robin for what this version does not have (decoding has said so)."""
    return BUILDERS.get(type(policy), BUILDERS[RoundRobin])
