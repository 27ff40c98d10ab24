"""What filters keep while plans come and go, and what surrounds a filter on its route."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.request import RequestHead
from meshlib.model.route import Route, VirtualHost
from meshlib.state.counter import Counter
from meshlib.state.limit_stats import LimitStats

if TYPE_CHECKING:
    from meshlib.engine.faults import Faults
    from meshlib.engine.global_limit import RateLimitServices
    from meshlib.engine.quota import Quotas

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FilterSite:
    """Where a filter stands: on which route of which virtual host, before which cluster (which the request may name),
    and the runtime's values.
    """

    route: Route
    virtual_host: VirtualHost
    cluster: str | Callable[[RequestHead], str] = ""
    runtime: Struct = EMPTY_STRUCT


class FilterStates(WeakValueDictionary[Hashable, Any]):
    """Filters, and their state, by (scope, name, configuration): a bucket survives a new plan as long as its
    configuration is the same, and some plan's route uses it.

    `instances`: how many endpoints the cluster has that this process is one of, 1 where that is not known;
    `source_cluster`: the cluster's name. Both follow the plan in force. `limits` counts what rate limit filters do, by
    the prefix of their statistics, and `counters` what any other filter does, by whole name. `services` is who asks
    rate limit services, for filters that do, and `quotas` who keeps quotas; None: nobody does. `attached` are filters
    from code, by the cluster that calls go to. `faults` are the mesh's.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__()
        self.faults = faults
        self.limits: dict[str, LimitStats] = {}
        self.counters: dict[str, Counter] = {}
        self.services: Callable[[], RateLimitServices] | None = None
        self.quotas: Callable[[], Quotas] | None = None
        self.attached: Mapping[str, Sequence[Any]] = {}
        self.instances = 1
        self.source_cluster = ""

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is known under `key`, made if nothing is. None, of what has no state to keep, is not remembered."""
        known: T | None = self.get(key)
        if known is not None:
            return known
        made = make()
        return made if made is None else self.setdefault(key, made)

    def limit_stats(self, prefix: str) -> LimitStats:
        """The counters of a prefix."""
        stats = self.limits.get(prefix)
        return self.limits.setdefault(prefix, LimitStats(prefix)) if stats is None else stats

    def add(self, name: str) -> None:
        """One more under a whole name."""
        counter = self.counters.get(name)
        (counter or self.counters.setdefault(name, Counter())).add()

    def counts(self) -> Iterator[tuple[str, int]]:
        """Everything that filters count, by whole name."""
        for limit in list(self.limits.values()):
            yield from limit.values()
        for name, counter in list(self.counters.items()):
            yield name, counter.value
