"""Every view of a cluster at one moment: the whole cluster's, or one for each subset that has been asked for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from meshlib.balancing.base import NO_HOSTS, Balancer, Host, OneHost, Rng
from meshlib.balancing.parts import PrioritySet
from meshlib.balancing.subset import SubsetIndex, SubsetKey
from meshlib.balancing.subset_localities import subset_priorities, subset_settings
from meshlib.balancing.timed import Timed
from meshlib.balancing.view import Built, Settings, View, compile_view
from meshlib.balancing.zones import Stats
from meshlib.model.metadata import Struct

MEMO_LIMIT = 1024  # criteria remembered by identity; there is one for each weighted cluster of a route


class FirstWithHost:
    """Several balancers, of which the first that has a host for a request counts."""

    __slots__ = ("_balancers",)

    def __init__(self, balancers: Sequence[Balancer]) -> None:
        self._balancers = tuple(balancers)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host, or None when none of them has one."""
        picks = (balancer.pick(request_hash, rng, attempt) for balancer in self._balancers)
        return next((host for host in picks if host is not None), None)


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
        elif previous is not None:  # what is in use is made anew here, and not by the first request that needs it
            for key in list(previous._views):
                if key in subsets and not subsets.is_single(key):
                    self._view_of(subsets, key)

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
        if len(self._memo) >= MEMO_LIMIT:  # criteria may be made of what callers say (strict lanes)
            self._memo = {}
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

    def key(self, criteria: Struct) -> SubsetKey | None:
        """The subset that a request with these criteria is balanced over, None where there is none for it."""
        if self._subsets is None:
            return None
        return next(iter(self._usable(self._subsets, criteria)), None)

    def _usable(self, subsets: SubsetIndex, criteria: Struct) -> list[SubsetKey]:
        """The subsets in question that have endpoints to use; one that has none where there is no other."""
        found = subsets.find(criteria)
        usable = [key for key in found if self._view_of(subsets, key).balancer is not NO_HOSTS]
        return usable or list(found[-1:])

    def _subset(self, subsets: SubsetIndex, criteria: Struct) -> View | None:
        views = [self._view_of(subsets, key) for key in self._usable(subsets, criteria)]
        if len(views) < 2:
            return views[0] if views else None
        first = copy(views[0])
        first.balancer = FirstWithHost([view.balancer for view in views])
        return first

    def _view_of(self, subsets: SubsetIndex, key: SubsetKey) -> View:
        view = self._views.get(key)
        if view is None:
            hosts = subsets.hosts(key)
            members = subset_priorities(hosts, self._priorities, self._settings)
            view = compile_view(members, subset_settings(self._settings), self._before.get(key, {}), self._stats)
            if subsets.is_single(key):  # as in Envoy, neither health nor panic matters
                view.balancer, view.in_panic = OneHost(min(hosts, key=lambda host: host.priority)), False
            self._views[key] = view
        return view
