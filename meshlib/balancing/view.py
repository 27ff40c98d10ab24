"""A view: the hosts of one priority set compiled for the availability of one moment. Read-only once compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, Rng
from meshlib.balancing.hashing import random_hash
from meshlib.balancing.locality import LocalityBalancer, LocalityHosts, effective_weights, shares
from meshlib.balancing.priority import HostCounts, PriorityLoad, priority_loads
from meshlib.balancing.registry import ByHash, ByTurn, builder_of
from meshlib.model.lb import LbPolicy
from meshlib.state.cells import ClusterState

PrioritySet: TypeAlias = "tuple[tuple[LocalityHosts, ...], ...]"
"""Localities by priority; index 0 is priority 0, and a priority may be empty."""

Key: TypeAlias = "tuple[int, str, object]"
Built: TypeAlias = "dict[Key, tuple[tuple[Host, ...], Sequence[float], Balancer]]"
"""What balancers were built of, so that an update rebuilds only those whose hosts or shares are different."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a cluster balances; the last two in percent."""

    policy: LbPolicy
    locality_weighted: bool
    overprovisioning_factor: int
    panic_threshold: float
    state: ClusterState = field(kw_only=True)


class View:
    """`balancer` picks over everything; `loads` and `in_panic` say how the load is shared among the priorities."""

    __slots__ = ("balancer", "built", "in_panic", "loads")

    def __init__(self, balancer: Balancer, loads: tuple[PriorityLoad, ...], built: Built) -> None:
        self.balancer = balancer
        self.loads = loads
        self.built = built
        self.in_panic = any(load.panic and (load.healthy or load.degraded) for load in loads)


class PriorityBalancer:
    """Chooses a priority by its percentage of the load, by the request's hash where the policy hashes."""

    __slots__ = ("_by_hash", "_of_percent")

    def __init__(self, loads: Sequence[tuple[int, Balancer]], by_hash: bool) -> None:
        self._of_percent = tuple(balancer for percent, balancer in loads for _ in range(percent))
        self._by_hash = by_hash

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host of the chosen priority."""
        if not self._by_hash:
            return self._of_percent[int(rng.random() * 100)].pick(request_hash, rng, attempt)
        if request_hash is None:
            request_hash = random_hash(rng)
        return self._of_percent[request_hash % 100].pick(request_hash, rng, attempt)


def compile_view(priorities: PrioritySet, settings: Settings, before: Built) -> View:
    """The view of the hosts as available now; balancers in `before` over the same hosts are kept, with their turn."""
    return _Compiler(settings, before).view(priorities)


class _Compiler:
    """One compilation: what it reuses and what it has built."""

    def __init__(self, settings: Settings, before: Built) -> None:
        self._settings = settings
        self._builder = builder_of(settings.policy)
        self._before = before
        self._built: Built = {}

    def view(self, priorities: PrioritySet) -> View:
        parts = [_Parts(localities) for localities in priorities]
        settings = self._settings
        counts = [part.counts for part in parts]
        loads = priority_loads(counts, settings.overprovisioning_factor, settings.panic_threshold) if counts else ()
        shared: list[tuple[int, Balancer]] = []
        # All healthy loads before all degraded ones: the order decides which hashes go to which priority.
        for priority, (part, load) in enumerate(zip(parts, loads, strict=True)):
            if load.healthy:
                shared.append((load.healthy, self._healthy(priority, part, load.panic)))
        for priority, (part, load) in enumerate(zip(parts, loads, strict=True)):
            if load.degraded:
                shared.append((load.degraded, self._degraded(priority, part, load.panic)))
        return View(self._combined(shared), loads, self._built)

    def _combined(self, shared: Sequence[tuple[int, Balancer]]) -> Balancer:
        if not shared:
            return NO_HOSTS
        if all(balancer is shared[0][1] for _, balancer in shared):
            return shared[0][1]
        return PriorityBalancer(shared, isinstance(self._builder, ByHash))

    def _healthy(self, priority: int, part: _Parts, panic: bool) -> Balancer:
        if isinstance(self._builder, ByHash):
            return self._table(priority, part, "all" if panic else "healthy", self._builder)
        if panic:  # every host counts, and locality weights do not
            return self._flat((priority, "all", None), part.all, self._builder)
        return self._by_locality(priority, part, "healthy", self._builder)

    def _degraded(self, priority: int, part: _Parts, panic: bool) -> Balancer:
        """The balancer for the load that healthy hosts leave; in panic it goes to every host, as theirs does.

        Envoy's hash tables hold no degraded hosts: their requests go to the healthy ones. Where there is no healthy
        host Envoy then has none at all and answers 503; we use the degraded ones.
        """
        if panic:
            return self._healthy(priority, part, panic)
        if isinstance(self._builder, ByHash):
            return self._table(priority, part, "healthy" if part.healthy else "degraded", self._builder)
        return self._by_locality(priority, part, "degraded", self._builder)

    def _flat(self, key: Key, hosts: tuple[Host, ...], builder: ByTurn) -> Balancer:
        old = self._before.get(key)
        if old is not None and old[0] == hosts:
            self._built[key] = old
            return old[2]
        balancer = builder.over(self._settings.policy, hosts)
        self._built[key] = (hosts, (), balancer)
        return balancer

    def _by_locality(self, priority: int, part: _Parts, kind: str, builder: ByTurn) -> Balancer:
        eligible = part.of(kind)
        if not self._settings.locality_weighted:
            return self._flat((priority, kind, None), _flattened(eligible), builder)
        weights = effective_weights(
            [locality.weight for locality in part.localities],
            [len(hosts) for hosts in eligible],
            part.staying,
            self._settings.overprovisioning_factor,
        )
        used = [index for index, weight in enumerate(weights) if weight]
        if not used:  # no locality has a weight: as if they were not there
            return self._flat((priority, kind, None), _flattened(eligible), builder)
        balancers = [
            self._flat((priority, kind, part.localities[index].locality), eligible[index], builder) for index in used
        ]
        if len(used) == 1:
            return balancers[0]
        return LocalityBalancer([weights[index] for index in used], balancers)

    def _table(self, priority: int, part: _Parts, kind: str, builder: ByHash) -> Balancer:
        eligible = part.of(kind)
        groups: list[tuple[int, Sequence[Host]]] = [(1, _flattened(eligible))]
        if self._settings.locality_weighted:
            groups = [(locality.weight, hosts) for locality, hosts in zip(part.localities, eligible, strict=True)]
        hosts, parts = shares(groups)
        key, members = (priority, kind, None), tuple(hosts)
        old = self._before.get(key)
        if old is None or old[0] != members or old[1] != parts:
            old = (members, parts, builder.build(self._settings.policy, members, parts, self._settings.state))
        self._built[key] = old
        return old[2]


class _Parts:
    """The hosts of one priority by availability. `staying` counts the hosts of each locality that are not draining."""

    __slots__ = ("_of", "all", "counts", "healthy", "localities", "staying")

    def __init__(self, localities: Sequence[LocalityHosts]) -> None:
        self.localities = localities
        groups = [locality.hosts for locality in localities]
        sorted_out = [_by_availability(hosts) for hosts in groups]
        self.all = _flattened(groups)
        self._of = {
            "all": groups,
            "healthy": [healthy for healthy, _ in sorted_out],
            "degraded": [degraded for _, degraded in sorted_out],
        }
        self.staying = [len(hosts) - _draining(hosts) for hosts in groups]
        total, healthy, degraded = len(self.all), *(sum(map(len, self._of[kind])) for kind in ("healthy", "degraded"))
        self.healthy = healthy > 0
        self.counts = HostCounts(total, healthy, degraded, total - sum(self.staying))

    def of(self, kind: str) -> list[tuple[Host, ...]]:
        """By locality."""
        return self._of[kind]


def _draining(hosts: tuple[Host, ...]) -> int:
    return sum(host.endpoint.health_status == "DRAINING" for host in hosts)


def _flattened(groups: Sequence[tuple[Host, ...]]) -> tuple[Host, ...]:
    return groups[0] if len(groups) == 1 else tuple(chain.from_iterable(groups))


def _by_availability(hosts: tuple[Host, ...]) -> tuple[tuple[Host, ...], tuple[Host, ...]]:
    """(healthy, degraded)."""
    now = [host.availability for host in hosts]
    if now.count("healthy") == len(now):
        return hosts, ()
    pairs = list(zip(hosts, now, strict=True))
    return (
        tuple(host for host, availability in pairs if availability == "healthy"),
        tuple(host for host, availability in pairs if availability == "degraded"),
    )
