"""ClusterBalancer: the endpoints of one cluster as calls choose among them.

A pick reads a compiled view and changes nothing but the policy's own counters. The view is compiled for one
availability (what the control plane says of health, and what outlier detection has ejected), which
`ClusterState.epoch` names:

* Up to `SMALL` hosts (fewer with a large hash ring), the first pick after a change compiles the new view: well under a
  millisecond for most policies.
* Above, picks go on with the old view, skipping ejected hosts, and `needs_refresh` is set: whoever owns a thread or a
  quiet moment calls `refresh()`. If nobody does, the pick that follows as many stale picks as there are hosts does it
  (with a large ring, in proportion), so that a host that came back is used again and the cost per pick is constant.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.compiled import Compiled
from meshlib.balancing.hosts import by_priority, hosts_of
from meshlib.balancing.registry import compile_cost, goes_by_time
from meshlib.balancing.report import BalancerReport, report
from meshlib.balancing.slow_start import joined
from meshlib.balancing.subset import SubsetIndex
from meshlib.balancing.subsetting import subset_of
from meshlib.balancing.view import Settings, View
from meshlib.balancing.zones import Callers
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, Locality
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.state.cells import ClusterState

SMALL = 512
INFINITY = float("inf")
HEAVY_TICK = 1.0  # seconds between two weighings of many hosts
IDLE_TICK = 1.0  # the same for balancers that may come into use, of a subset or a priority
STALE_ATTEMPTS = 8  # picks from an old view that may meet an ejected host before the view is compiled after all

_NO_ENDPOINTS = ClusterLoadAssignment("")
_NOWHERE = Locality()


class ClusterBalancer:
    """`hosts` are all endpoints, in the assignment's order; an address that comes twice counts once, as in Envoy's EDS.

    `assignment` None: not known yet, nothing to pick. `previous`: the balancer before this update; hosts and balancers
    that the update leaves as they are stay the same objects. Raises `ResourceError` when the policy lacks a package.
    """

    __slots__ = (
        "_by_address",
        "_compiled",
        "_cost",
        "_now",
        "_priorities",
        "_settings",
        "_stale_picks",
        "_state",
        "_subsets",
        "_warm_until",
        "hosts",
        "needs_refresh",
    )

    def __init__(
        self,
        cluster: Cluster,
        assignment: ClusterLoadAssignment | None,
        state: ClusterState,
        previous: ClusterBalancer | None = None,
        callers: Callers | None = None,
        locality: Locality = _NOWHERE,
    ) -> None:
        assignment = assignment or (None if cluster.by_dns else cluster.load_assignment) or _NO_ENDPOINTS
        if cluster.subsetting is not None:
            assignment = subset_of(assignment, cluster.subsetting, state.seed)
        self._state = state
        self.hosts: tuple[Host, ...] = hosts_of(assignment, state, previous.hosts if previous is not None else ())
        self._settings = Settings(
            cluster.lb_policy,
            cluster.locality_weighted,
            assignment.overprovisioning_factor,
            cluster.healthy_panic_threshold,
            assignment.weighted_priority_health,
            cluster.zone_aware,
            callers,
            cluster.subsets,
            state=state,
            load_aware=cluster.load_aware,
            here=locality,
        )
        self._priorities = by_priority(assignment, self.hosts, cluster.locality_weighted)
        subsets = cluster.subsets
        self._subsets = SubsetIndex(subsets, self.hosts) if subsets is not None and subsets.selectors else None
        same_policy = previous is not None and previous._settings.policy == cluster.lb_policy
        self._compiled: Compiled = self._compile(previous._compiled if previous is not None and same_policy else None)
        self._cost = compile_cost(cluster.lb_policy, self.hosts)
        self._by_address: dict[str, Host] | None = None
        self._stale_picks = count()
        self._now: float | None = None
        self._warm_until = INFINITY if self._subsets is not None and goes_by_time(cluster.lb_policy) else -INFINITY
        self.needs_refresh = False

    @property
    def overprovisioning_factor(self) -> int:
        """In percent."""
        return self._settings.overprovisioning_factor

    @property
    def in_panic(self) -> bool:
        """Whether requests now go to hosts regardless of health (Envoy's `lb_healthy_panic` counts those)."""
        compiled = self._compiled
        whole = compiled.whole
        return compiled.in_panic if whole is None else whole.in_panic

    def pick(
        self,
        request_hash: int | None,
        criteria: Struct,
        rng: Rng,
        tried: Collection[Host] = (),
        max_attempts: int = 0,
    ) -> Host | None:
        """A host for one attempt of a request, or None: no endpoint may be used (UH).

        `request_hash` is the route's hash (64 bits) or None. `criteria` choose the subset. A host in `tried` is turned
        down up to `max_attempts` times, then taken: Envoy's `previous_hosts` and `host_selection_retry_max_attempts`.
        """
        compiled = self._compiled
        if compiled.epoch is not self._state.epoch:
            if self._keep_stale():
                return self._pick_stale(request_hash, criteria, rng, tried, max_attempts)
            compiled = self._compiled
        view = compiled.whole or compiled.view(criteria)
        if view is None:
            return None
        host = view.balancer.pick(request_hash, rng)
        if tried and host in tried:
            return _pick_untried(view.balancer, request_hash, rng, tried, max_attempts, host)
        return host

    def pick_without(
        self,
        priorities: frozenset[int],
        request_hash: int | None,
        criteria: Struct,
        rng: Rng,
        tried: Collection[Host] = (),
        max_attempts: int = 0,
    ) -> Host | None:
        """`pick` with the load of these priorities on the others, by their health: for a retry priority."""
        view = self.view(criteria)
        if view is None:
            return None
        return self._pick_of(view, view.without(priorities), request_hash, rng, tried, max_attempts)

    def available_beyond(self, priorities: Collection[int], criteria: Struct = EMPTY_STRUCT) -> bool:
        """Whether any other priority than these has a host that may serve."""
        view = self.view(criteria)
        counts = view.counts if view is not None else ()
        return any(
            count.healthy or count.degraded for priority, count in enumerate(counts) if priority not in priorities
        )

    def pick_in(
        self,
        priority: int,
        degraded: bool,
        request_hash: int | None,
        criteria: Struct,
        rng: Rng,
        tried: Collection[Host] = (),
        max_attempts: int = 0,
    ) -> Host | None:
        """`pick` among the healthy (or the degraded) hosts of one priority: for an aggregate cluster, which chooses it.
        A priority in panic has all its hosts to choose from.
        """
        view = self.view(criteria)
        if view is None or priority >= len(view.loads):
            return None
        return self._pick_of(view, view.of(priority, degraded), request_hash, rng, tried, max_attempts)

    def view(self, criteria: Struct = EMPTY_STRUCT) -> View | None:
        """What is in force for a request with these criteria; None: there is no subset for it."""
        if self._compiled.epoch is not self._state.epoch:
            self._keep_stale()
        return self._compiled.view(criteria)

    def whole(self) -> View:
        """What is in force for the cluster as a whole, whatever subsets it has."""
        if self._compiled.epoch is not self._state.epoch:
            self._keep_stale()
        return self._compiled.whole or self._compiled.everything()

    def host_at(self, address: str) -> Host | None:
        """The endpoint of an address, if there is one, whatever its health."""
        found = self._by_address
        if found is None:  # few clusters are ever asked
            found = self._by_address = {host.address: host for host in self.hosts}
        return found.get(address)

    def refresh(self) -> None:
        """Compile the view for the availability of now. Costs time in proportion to the hosts: call it off the hot path
        when `needs_refresh` is set. Safe from any thread.
        """
        self.needs_refresh = False
        self._stale_picks = count()
        self._compiled = self._compile(self._compiled)
        if self._now is not None:
            self.begin(self._now)

    def tick(self, now: float) -> float:
        """Tell balancers that go by the time (slow start, reported load, latencies) that it is `now`, in monotonic
        seconds. Returns when they want to hear again, infinity for never. What would take too long for a pick is left
        to `refresh`.
        """
        timed = self._compiled.timed()
        idle = now + IDLE_TICK if now < self._warm_until else INFINITY
        if not timed:
            return idle
        self._now = now
        if not any(balancer.heavy for balancer in timed):
            return min(idle, *(balancer.tick(now) for balancer in timed))
        self.needs_refresh = True
        return now + HEAVY_TICK

    def begin(self, now: float) -> None:
        """The balancer is in force from `now`: new endpoints have joined. Off the hot path, like `refresh`."""
        self._now = now
        slow_start = getattr(self._settings.policy, "slow_start", None)
        if slow_start is not None:  # the time of hosts that nobody asks yet begins too
            latest = max((joined(host, now) for host in self.hosts), default=-INFINITY)
            self._warm_until = max(self._warm_until, latest + slow_start.window)
        for balancer in self._compiled.timed():
            balancer.tick(now)

    def describe(self, criteria: Struct = EMPTY_STRUCT) -> BalancerReport:
        """What a request with these criteria would be balanced over, and how: for people."""
        if self._compiled.epoch is not self._state.epoch:
            self.refresh()
        view = self._compiled.view(criteria)
        hosts = self.hosts
        if self._subsets is not None:
            key = self._compiled.key(criteria)
            hosts = () if key is None else self._subsets.hosts(key)
        return report(self._settings.policy, view, hosts)

    def _compile(self, previous: Compiled | None) -> Compiled:
        # The epoch is read before the cells: a change meanwhile makes the view out of date, and it is compiled again.
        return Compiled(self._state.epoch, self._priorities, self._settings, self._subsets, previous, self._state.stats)

    def _keep_stale(self) -> bool:
        """After a change: True to go on with the old view, False when it has been compiled anew."""
        if self._cost > SMALL and next(self._stale_picks) < self._cost:
            self.needs_refresh = True
            return True
        self.refresh()
        return False

    def _pick_stale(
        self, request_hash: int | None, criteria: Struct, rng: Rng, tried: Collection[Host], max_attempts: int
    ) -> Host | None:
        view = self._compiled.view(criteria)
        if view is None:
            return None
        for attempt in range(max(max_attempts, STALE_ATTEMPTS) + 1):
            host = view.balancer.pick(request_hash, rng, attempt)
            usable = host is not None and (view.in_panic or host.cell.usable)
            if usable and (attempt >= max_attempts or host not in tried):
                return host
        self.refresh()
        return self.pick(request_hash, criteria, rng, tried, max_attempts)

    def _pick_of(
        self,
        view: View,
        balancer: Balancer,
        request_hash: int | None,
        rng: Rng,
        tried: Collection[Host],
        max_attempts: int,
    ) -> Host | None:
        """By a balancer of the view that may be out of date: ejected hosts are turned down, while there are others."""
        stale = self._compiled.epoch is not self._state.epoch and not view.in_panic
        for attempt in range(max(max_attempts, STALE_ATTEMPTS if stale else 0) + 1):
            host = balancer.pick(request_hash, rng, attempt)
            if host is None or (stale and not host.cell.usable):
                continue
            if attempt >= max_attempts or host not in tried:
                return host
        return balancer.pick(request_hash, rng)


def _pick_untried(
    balancer: Balancer,
    request_hash: int | None,
    rng: Rng,
    tried: Collection[Host],
    max_attempts: int,
    host: Host | None,
) -> Host | None:
    """Pick again while the host was tried before, `max_attempts` times at most."""
    for attempt in range(1, max_attempts + 1):
        host = balancer.pick(request_hash, rng, attempt)
        if host not in tried:
            break
    return host
