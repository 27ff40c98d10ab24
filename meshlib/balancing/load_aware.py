"""Load-aware localities: requests stay in this process's locality while it is about as busy as the others, and go where
there is headroom when it is not (Envoy 1.40, `envoy.extensions.load_balancing_policies.load_aware_locality.v3`).

Every `weight_update_period` the utilization that endpoints report (ORCA) is averaged and smoothed by locality; a
locality weighs `endpoints x (1 - utilization)`. The steps and their order are those of Envoy's documentation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp, inf

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.client_side import utilization
from meshlib.balancing.timed import INLINE, Timed
from meshlib.model.endpoint import Locality
from meshlib.model.orca import LoadReport
from meshlib.model.zones import LoadAware

LARGEST = 1e6  # utilization: an average of larger ones may be infinite, and would be so for ever


def take_in_utilization(config: LoadAware, host: Host, report: LoadReport, now: float) -> None:
    """Keep how busy an endpoint says it is. A report that says nothing is none."""
    used = utilization(report, config.metric_names_for_computing_utilization)
    if used > 0.0:
        host.cell.used = (min(used, LARGEST), now)


class Load:
    """One locality: its endpoints, and how busy they were found so far (None: never heard of)."""

    __slots__ = ("_config", "count", "hosts", "local", "smoothed", "stale")

    def __init__(self, config: LoadAware, hosts: Sequence[Host], local: bool) -> None:
        self._config = config
        self.hosts = tuple(hosts)
        self.count = len(hosts)
        self.local = local
        self.smoothed: float | None = None
        self.stale = False

    @property
    def used(self) -> float:
        """0.0 before the first report: full headroom."""
        return 0.0 if self.smoothed is None else self.smoothed

    @property
    def weight(self) -> float:
        """Its headroom; a locality whose reports are all too old counts by its endpoints."""
        return float(self.count) if self.stale else self.count * max(0.0, 1.0 - self.used)

    def update(self, now: float) -> None:
        """Take the reports of the endpoints into account."""
        config = self._config
        oldest = now - config.weight_expiration_period if config.weight_expiration_period else -inf
        found = [sample[0] for host in self.hosts if (sample := host.cell.used) is not None and sample[1] >= oldest]
        if not found:
            self.stale = self.smoothed is not None
            return
        raw, self.stale = sum(found) / len(found), False
        alpha = 1.0 - exp(-config.weight_update_period / config.smoothing_time_constant)
        self.smoothed = raw if self.smoothed is None else alpha * raw + (1.0 - alpha) * self.smoothed


def locality_weights(config: LoadAware, loads: Sequence[Load]) -> list[float]:
    """The share of the requests by locality, in any unit."""
    weights = [load.weight for load in loads]
    total = sum(weights)
    if total <= 0.0:
        return [float(load.count) for load in loads]  # all full: by their endpoints
    local = next((index for index, load in enumerate(loads) if load.local), None)
    remote = sum(load.count for load in loads if not load.local)
    if local is None or not remote:
        return weights
    busy = sum(load.used * load.count for load in loads if not load.local) / remote
    if loads[local].count and loads[local].used <= busy + config.utilization_variance_threshold:
        weights = [total if index == local else 0.0 for index in range(len(loads))]
    wanted = config.remote_probe_fraction * total
    missing = min(max(0.0, wanted - (sum(weights) - weights[local])), weights[local])
    return [
        weight - missing if index == local else weight + missing * load.count / remote
        for index, (weight, load) in enumerate(zip(weights, loads, strict=True))
    ]


class LoadAwareBalancer(Timed):
    """Chooses a locality by its headroom, then a host in it by the cluster's policy. What was learnt of localities
    that the balancer `before` had too is kept.
    """

    __slots__ = ("_balancers", "_bounds", "_config", "_due", "_loads", "_places")

    def __init__(
        self,
        config: LoadAware,
        here: Locality | None,
        places: Sequence[Locality],
        hosts: Sequence[Sequence[Host]],
        balancers: Sequence[Balancer],
        before: LoadAwareBalancer | None,
    ) -> None:
        self._config = config
        self._places = tuple(places)
        self._loads = [Load(config, members, place == here) for place, members in zip(places, hosts, strict=True)]
        self._due: float = -inf if before is None else before._due
        known = {} if before is None else dict(zip(before._places, before._loads, strict=True))
        for place, load in zip(self._places, self._loads, strict=True):
            if place in known:
                load.smoothed, load.stale = known[place].smoothed, known[place].stale
        self._balancers = tuple(balancers)
        self._bounds = list(accumulate(locality_weights(config, self._loads)))

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        """Averaging takes time in proportion to the hosts."""
        return sum(load.count for load in self._loads) > INLINE

    def tick(self, now: float) -> float:
        """Weigh the localities, once in a period: the smoothing is by how often that is done."""
        if now < self._due:
            return self._due
        self._due = due = now + self._config.weight_update_period
        for load in self._loads:
            load.update(now)
        self._bounds = list(accumulate(locality_weights(self._config, self._loads)))
        return due

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host of the chosen locality."""
        bounds = self._bounds
        index = min(bisect_right(bounds, rng.random() * bounds[-1]), len(bounds) - 1)
        return self._balancers[index].pick(request_hash, rng, attempt)
