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

from meshlib.balancing.base import Host, Rng
from meshlib.balancing.compiled import Compiled
from meshlib.balancing.hosts import by_priority, hosts_of
from meshlib.balancing.registry import compile_cost
from meshlib.balancing.report import BalancerReport, report
from meshlib.balancing.subset import SubsetIndex
from meshlib.balancing.view import Settings, View
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.state.cells import ClusterState

SMALL = 512
STALE_ATTEMPTS = 8  # picks from an old view that may meet an ejected host before the view is compiled after all

_NO_ENDPOINTS = ClusterLoadAssignment("")


class ClusterBalancer:
    """`hosts` are all endpoints, in the assignment's order; an address that comes twice counts once, as in Envoy's EDS.

    `assignment` None: not known yet, nothing to pick. `previous`: the balancer before this update; hosts and balancers
    that the update leaves as they are stay the same objects. Raises `ResourceError` when the policy lacks a package.
    """

    __slots__ = (
        "_compiled",
        "_cost",
        "_priorities",
        "_settings",
        "_stale_picks",
        "_state",
        "_subsets",
        "hosts",
        "needs_refresh",
    )

    def __init__(
        self,
        cluster: Cluster,
        assignment: ClusterLoadAssignment | None,
        state: ClusterState,
        previous: ClusterBalancer | None = None,
    ) -> None:
        assignment = assignment or cluster.load_assignment or _NO_ENDPOINTS
        self._state = state
        self.hosts: tuple[Host, ...] = hosts_of(assignment, state, previous.hosts if previous is not None else ())
        self._settings = Settings(
            cluster.lb_policy,
            cluster.locality_weighted,
            assignment.overprovisioning_factor,
            cluster.healthy_panic_threshold,
            state=state,
        )
        self._priorities = by_priority(assignment, self.hosts, cluster.locality_weighted)
        subsets = cluster.subsets
        self._subsets = SubsetIndex(subsets, self.hosts) if subsets is not None and subsets.selectors else None
        same_policy = previous is not None and previous._settings.policy == cluster.lb_policy
        self._compiled: Compiled = self._compile(previous._compiled if previous is not None and same_policy else None)
        self._cost = compile_cost(cluster.lb_policy, len(self.hosts))
        self._stale_picks = count()
        self.needs_refresh = False

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
            return _pick_untried(view, request_hash, rng, tried, max_attempts, host)
        return host

    def refresh(self) -> None:
        """Compile the view for the availability of now. Costs time in proportion to the hosts: call it off the hot path
        when `needs_refresh` is set. Safe from any thread.
        """
        self.needs_refresh = False
        self._stale_picks = count()
        self._compiled = self._compile(self._compiled)

    def describe(self, criteria: Struct = EMPTY_STRUCT) -> BalancerReport:
        """What a request with these criteria would be balanced over, and how: for people."""
        if self._compiled.epoch is not self._state.epoch:
            self.refresh()
        view = self._compiled.view(criteria)
        hosts = self.hosts
        if self._subsets is not None:
            key = self._subsets.find(criteria)
            hosts = () if key is None else self._subsets.hosts(key)
        return report(self._settings.policy, view, hosts)

    def _compile(self, previous: Compiled | None) -> Compiled:
        # The epoch is read before the cells: a change meanwhile makes the view out of date, and it is compiled again.
        return Compiled(self._state.epoch, self._priorities, self._settings, self._subsets, previous)

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
            usable = host is not None and (view.in_panic or host.cell.ejection is None)
            if usable and (attempt >= max_attempts or host not in tried):
                return host
        self.refresh()
        return self.pick(request_hash, criteria, rng, tried, max_attempts)


def _pick_untried(
    view: View, request_hash: int | None, rng: Rng, tried: Collection[Host], max_attempts: int, host: Host | None
) -> Host | None:
    """Pick again while the host was tried before, `max_attempts` times at most."""
    for attempt in range(1, max_attempts + 1):
        host = view.balancer.pick(request_hash, rng, attempt)
        if host not in tried:
            break
    return host
