"""A view: the hosts of one priority set compiled for the availability of one moment. Read-only once compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, Rng
from meshlib.balancing.hashing import random_hash
from meshlib.balancing.load_aware import LoadAwareBalancer
from meshlib.balancing.locality import LocalityBalancer, effective_weights, shares
from meshlib.balancing.parts import Parts, PrioritySet, flattened
from meshlib.balancing.priority import PriorityLoad, loads_without, priority_loads
from meshlib.balancing.registry import ByHash, ByTurn, builder_of
from meshlib.balancing.zones import Callers, Stats, ZoneBalancer, zone_shares
from meshlib.model.endpoint import Locality
from meshlib.model.lb import LbPolicy, LbSubsetConfig
from meshlib.model.zones import ZONE_AWARE, LoadAware, ZoneAware
from meshlib.state.cells import ClusterState

Key: TypeAlias = "tuple[int, str, object]"
Built: TypeAlias = "dict[Key, tuple[tuple[Host, ...], Sequence[float], Balancer]]"
"""What balancers were built of, so that an update rebuilds only those whose hosts or shares are different."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a cluster balances; the factor and the threshold in percent. `callers` None: nothing is routed by zones."""

    policy: LbPolicy
    locality_weighted: bool
    overprovisioning_factor: int
    panic_threshold: float
    state: ClusterState = field(kw_only=True)
    weighted_health: bool = False
    zone_aware: ZoneAware = ZONE_AWARE
    callers: Callers | None = None
    subsets: LbSubsetConfig | None = None
    load_aware: LoadAware | None = None
    here: Locality | None = None


class View:
    """`balancer` picks over everything; `loads` and `in_panic` say how the load is shared among the priorities, and
    `counts` of how many hosts that was reckoned. The balancer of one priority alone is made when it is first asked for.
    """

    __slots__ = ("_compiler", "_parts", "_without", "balancer", "built", "counts", "in_panic", "loads")

    def __init__(
        self, balancer: Balancer, loads: tuple[PriorityLoad, ...], parts: Sequence[Parts], compiler: _Compiler
    ) -> None:
        self.balancer = balancer
        self.loads = loads
        self.built = compiler.built
        self.in_panic = any(load.panic and (load.healthy or load.degraded) for load in loads)
        self.counts = tuple(part.counts for part in parts)
        self._parts = parts
        self._compiler = compiler
        self._without: dict[frozenset[int], Balancer] = {}

    def of(self, priority: int, degraded: bool = False) -> Balancer:
        """Over the healthy (or the degraded) hosts of one priority; in panic over all of them."""
        return self._compiler.of(priority, self._parts[priority], self.loads[priority].panic, degraded)

    def without(self, tried: frozenset[int]) -> Balancer:
        """With the load of these priorities on the others, for Envoy's `previous_priorities`."""
        found = self._without.get(tried)
        if found is None:
            found = self._without[tried] = self._compiler.without(tried, self)
        return found


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


def compile_view(priorities: PrioritySet, settings: Settings, before: Built, stats: Stats) -> View:
    """The view of the hosts as available now; balancers in `before` over the same hosts are kept, with their turn."""
    compiler = _Compiler(settings, before, stats)
    view = compiler.view(priorities)
    compiler.forget()
    return view


class _Compiler:
    """One compilation: what it reuses and what it has built."""

    def __init__(self, settings: Settings, before: Built, stats: Stats) -> None:
        self._settings = settings
        self._builder = builder_of(settings.policy)
        self._before = before
        self._stats = stats
        self.built: Built = {}

    def view(self, priorities: PrioritySet) -> View:
        """The whole."""
        settings = self._settings
        parts = [Parts(localities, settings.weighted_health) for localities in priorities]
        counts = [part.counts for part in parts]
        loads = priority_loads(counts, settings.overprovisioning_factor, settings.panic_threshold) if counts else ()
        return View(self._over(parts, loads), loads, parts, self)

    def without(self, tried: frozenset[int], view: View) -> Balancer:
        """Over the priorities that have not been tried."""
        loads = loads_without(tried, view.loads, view.counts, self._settings.overprovisioning_factor)
        return self._over(view._parts, loads)

    def of(self, priority: int, part: Parts, panic: bool, degraded: bool) -> Balancer:
        """Over one priority alone."""
        return (self._degraded if degraded else self._healthy)(priority, part, panic)

    def forget(self) -> None:
        """Let go of the views before, or each would keep all that came before it."""
        self._before = self.built

    def _over(self, parts: Sequence[Parts], loads: Sequence[PriorityLoad]) -> Balancer:
        shared: list[tuple[int, Balancer]] = []
        # All healthy loads before all degraded ones: the order decides which hashes go to which priority.
        for priority, (part, load) in enumerate(zip(parts, loads, strict=True)):
            if load.healthy:
                shared.append((load.healthy, self._healthy(priority, part, load.panic)))
        for priority, (part, load) in enumerate(zip(parts, loads, strict=True)):
            if load.degraded:
                shared.append((load.degraded, self._degraded(priority, part, load.panic)))
        return self._combined(shared)

    def _combined(self, shared: Sequence[tuple[int, Balancer]]) -> Balancer:
        if not shared:
            return NO_HOSTS
        if all(balancer is shared[0][1] for _, balancer in shared):
            return shared[0][1]
        return PriorityBalancer(shared, isinstance(self._builder, ByHash))

    def _healthy(self, priority: int, part: Parts, panic: bool) -> Balancer:
        if isinstance(self._builder, ByHash):
            return self._table(priority, part, "all" if panic else "healthy", self._builder)
        if panic and self._settings.zone_aware.fail_traffic_on_panic:
            return NO_HOSTS
        if panic and self._settings.load_aware is not None:
            return self._by_load(self._settings.load_aware, priority, part, "all", self._builder)
        if panic:  # every host counts, and locality weights do not
            return self._flat((priority, "all", None), part.all, self._builder)
        return self._by_locality(priority, part, "healthy", self._builder)

    def _degraded(self, priority: int, part: Parts, panic: bool) -> Balancer:
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
            self.built[key] = old
            return old[2]
        balancer = builder.over(self._settings.policy, hosts)
        self.built[key] = (hosts, (), balancer)
        return balancer

    def _by_locality(self, priority: int, part: Parts, kind: str, builder: ByTurn) -> Balancer:
        eligible = part.of(kind)
        if self._settings.load_aware is not None:
            return self._by_load(self._settings.load_aware, priority, part, kind, builder)
        if not self._settings.locality_weighted:
            whole = self._flat((priority, kind, None), flattened(eligible), builder)
            callers = self._settings.callers
            if callers is None or priority:  # zones are those of priority 0
                return whole
            return self._by_zone(callers, part, kind, builder, whole)
        weights = effective_weights(
            [locality.weight for locality in part.localities],
            [len(hosts) for hosts in eligible],
            part.staying,
            self._settings.overprovisioning_factor,
        )
        used = [index for index, weight in enumerate(weights) if weight]
        if not used:  # no locality has a weight: as if they were not there
            return self._flat((priority, kind, None), flattened(eligible), builder)
        balancers = [
            self._flat((priority, kind, part.localities[index].locality), eligible[index], builder) for index in used
        ]
        if len(used) == 1:
            return balancers[0]
        return LocalityBalancer([weights[index] for index in used], balancers)

    def _by_load(self, config: LoadAware, priority: int, part: Parts, kind: str, builder: ByTurn) -> Balancer:
        """What was learnt of a locality's load is kept as long as there is the locality."""
        places, groups = [group.locality for group in part.localities], part.of(kind)
        if not any(groups):
            return NO_HOSTS
        key: Key = (priority, kind, config)
        old = self._before.get(key)
        before = old[2] if old is not None and isinstance(old[2], LoadAwareBalancer) else None
        balancers = [
            self._flat((priority, kind, place), hosts, builder) for place, hosts in zip(places, groups, strict=True)
        ]
        made = LoadAwareBalancer(config, self._settings.here, places, groups, balancers, before)
        self.built[key] = (flattened(groups), (), made)
        return made

    def _by_zone(self, callers: Callers, part: Parts, kind: str, builder: ByTurn, whole: Balancer) -> Balancer:
        config = self._settings.zone_aware
        places = [group.locality for group in part.localities]
        shares = zone_shares(config, callers, places, part.of("healthy"), self._stats)
        if shares is None:
            return whole
        if callers.available < self._settings.panic_threshold:  # as in Envoy: the cluster's own threshold
            self._stats["lb_local_cluster_not_ok"].add()
            return NO_HOSTS if config.fail_traffic_on_panic else whole
        balancers = [
            self._flat((0, kind, place), hosts, builder) for place, hosts in zip(places, part.of(kind), strict=True)
        ]
        return ZoneBalancer(shares, balancers, whole, config.routing_enabled, self._stats)

    def _table(self, priority: int, part: Parts, kind: str, builder: ByHash) -> Balancer:
        eligible = part.of(kind)
        groups: list[tuple[int, Sequence[Host]]] = [(1, flattened(eligible))]
        if self._settings.locality_weighted:
            groups = [(locality.weight, hosts) for locality, hosts in zip(part.localities, eligible, strict=True)]
        hosts, parts = shares(groups)
        key, members = (priority, kind, None), tuple(hosts)
        old = self._before.get(key)
        if old is None or old[0] != members or old[1] != parts:
            old = (members, parts, builder.build(self._settings.policy, members, parts, self._settings.state))
        self.built[key] = old
        return old[2]
