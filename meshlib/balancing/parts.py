"""The hosts of one priority, sorted out by availability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

from meshlib.balancing.base import Host
from meshlib.balancing.locality import LocalityHosts
from meshlib.balancing.priority import HostCounts

PrioritySet: TypeAlias = "tuple[tuple[LocalityHosts, ...], ...]"
"""Localities by priority; index 0 is priority 0, and a priority may be empty."""


class Parts:
    """The hosts of one priority by availability. `staying` counts the hosts of each locality that are not leaving.
    `by_weight`: its health goes by the weight of the hosts.
    """

    __slots__ = ("_of", "all", "counts", "healthy", "localities", "staying")

    def __init__(self, localities: Sequence[LocalityHosts], by_weight: bool = False) -> None:
        self.localities = localities
        groups = [locality.hosts for locality in localities]
        sorted_out = [_by_availability(hosts) for hosts in groups]
        self.all = flattened(groups)
        self._of = {
            "all": groups,
            "healthy": [healthy for healthy, _ in sorted_out],
            "degraded": [degraded for _, degraded in sorted_out],
        }
        self.staying = [len(hosts) - sum(host.leaving for host in hosts) for hosts in groups]
        total, healthy, degraded = len(self.all), *(sum(map(len, self._of[kind])) for kind in ("healthy", "degraded"))
        self.healthy = healthy > 0
        weights = self._weights() if by_weight else None
        self.counts = HostCounts(total, healthy, degraded, total - sum(self.staying), weights)

    def of(self, kind: str) -> list[tuple[Host, ...]]:
        """By locality."""
        return self._of[kind]

    def _weights(self) -> tuple[int, int, int]:
        """Of the hosts that stay, the healthy and the degraded ones."""
        staying = sum(host.weight for host in self.all if not host.leaving)
        healthy, degraded = (sum(host.weight for host in flattened(self._of[kind])) for kind in ("healthy", "degraded"))
        return staying, healthy, degraded


def flattened(groups: Sequence[tuple[Host, ...]]) -> tuple[Host, ...]:
    """The hosts of all groups."""
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
