"""Every view of a cluster at one moment: the whole cluster's, or one for each subset that has been asked for."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balancing.base import Host
from meshlib.balancing.locality import LocalityHosts
from meshlib.balancing.parts import PrioritySet
from meshlib.balancing.subset import SubsetIndex, SubsetKey
from meshlib.balancing.timed import Timed
from meshlib.balancing.view import Built, Settings, View, compile_view
from meshlib.balancing.zones import Stats
from meshlib.model.endpoint import Locality
from meshlib.model.metadata import Struct

MEMO_LIMIT = 1024  # criteria remembered by identity; there is one for each weighted cluster of a route


class Compiled:
    """Compiled for `epoch`. `whole` is None where the cluster has subsets: each is compiled when first asked for."""

    __slots__ = (
        "_before",
        "_everything",
        "_memo",
        "_priorities",
        "_settings",
        "_stats",
        "_subsets",
        "_views",
        "epoch",
        "whole",
    )

    def __init__(
        self,
        epoch: object,
        priorities: PrioritySet,
        settings: Settings,
        subsets: SubsetIndex | None,
        previous: Compiled | None,
        stats: Stats,
    ) -> None:
        self.epoch = epoch
        self._stats = stats
        self._priorities = priorities
        self._settings = settings
        self._subsets = subsets
        self._before = previous.built() if previous is not None else {}
        self._views: dict[SubsetKey, View] = {}
        self._memo: dict[int, tuple[Struct, View | None]] = {}
        self._everything: View | None = None
        self.whole: View | None = None
        if subsets is None:
            self.whole = compile_view(priorities, settings, self._before.get(None, {}), stats)
            self._before = {}

    @property
    def in_panic(self) -> bool:
        """Whether a priority that gets load is in panic: of the cluster, or of a subset in use."""
        if self.whole is not None:
            return self.whole.in_panic
        return any(view.in_panic for view in list(self._views.values()))

    def view(self, criteria: Struct) -> View | None:
        """The view for a request with these `metadata_match` criteria; None when no subset and no fallback is there.

        Routes keep their criteria object, so it is looked up by identity first.
        """
        if self.whole is not None or self._subsets is None:
            return self.whole
        found = self._memo.get(id(criteria))
        if found is not None and found[0] is criteria:
            return found[1]
        view = self._subset(self._subsets, criteria)
        if len(self._memo) < MEMO_LIMIT:
            self._memo[id(criteria)] = (criteria, view)
        return view

    def timed(self) -> list[Timed]:
        """The balancers in use that go by the time."""
        built = [self.whole.built] if self.whole is not None else [view.built for view in list(self._views.values())]
        return [balancer for found in built for _, _, balancer in found.values() if isinstance(balancer, Timed)]

    def everything(self) -> View:
        """The view of the whole cluster, subsets or not: for whoever balances among clusters."""
        if self._everything is None:
            self._everything = compile_view(self._priorities, self._settings, {}, self._stats)
        return self._everything

    def built(self) -> dict[SubsetKey | None, Built]:
        """What the views were built of, for the next compilation; a subset not asked for since keeps what it had."""
        if self.whole is not None:
            return {None: self.whole.built}
        return {**self._before, **{key: view.built for key, view in list(self._views.items())}}

    def _subset(self, subsets: SubsetIndex, criteria: Struct) -> View | None:
        key = subsets.find(criteria)
        if key is None:
            return None
        view = self._views.get(key)
        if view is None:
            members = _priorities_of(subsets.hosts(key), len(self._priorities))
            view = compile_view(members, self._settings, self._before.get(key, {}), self._stats)
            self._views[key] = view
        return view


def _priorities_of(hosts: Sequence[Host], count: int) -> PrioritySet:
    """The priorities of a subset, without localities: Envoy's subsets ignore locality weights unless told otherwise."""
    by_priority: list[list[Host]] = [[] for _ in range(count)]
    for host in hosts:
        by_priority[host.priority].append(host)
    return tuple((LocalityHosts(Locality(), 0, tuple(members)),) for members in by_priority)
