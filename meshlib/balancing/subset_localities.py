"""The localities of a subset: Envoy's subsets ignore their weights unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor
from struct import pack, unpack

from meshlib.balancing.base import Host
from meshlib.balancing.locality import LocalityHosts
from meshlib.balancing.parts import PrioritySet
from meshlib.balancing.view import Settings
from meshlib.model.endpoint import Locality

_ALL = Locality()


def subset_settings(settings: Settings) -> Settings:
    """How a subset is balanced: by locality weights only with `locality_weight_aware`."""
    return replace(settings, locality_weighted=_by_weight(settings))


def subset_priorities(hosts: Sequence[Host], whole: PrioritySet, settings: Settings) -> PrioritySet:
    """The hosts of a subset by priority, and by locality where localities matter."""
    if _by_weight(settings) or settings.callers is not None:
        members = frozenset(hosts)
        scale = settings.subsets is not None and settings.subsets.scale_locality_weight
        return tuple(tuple(_part(locality, members, scale) for locality in priority) for priority in whole)
    by_priority: list[list[Host]] = [[] for _ in whole]
    for host in hosts:
        by_priority[host.priority].append(host)
    return tuple((LocalityHosts(_ALL, 0, tuple(members)),) for members in by_priority)


def _by_weight(settings: Settings) -> bool:
    subsets = settings.subsets
    return settings.locality_weighted and subsets is not None and subsets.locality_weight_aware


def _part(whole: LocalityHosts, members: frozenset[Host], scale: bool) -> LocalityHosts:
    hosts = tuple(host for host in whole.hosts if host in members)
    weight = _scaled(whole.weight, len(hosts), len(whole.hosts)) if scale else whole.weight
    return LocalityHosts(whole.locality, weight, hosts)


def _scaled(weight: int, part: int, total: int) -> int:
    """The weight in proportion to the hosts that are in the subset, rounded in single precision as Envoy does."""
    return floor(_single(_single(weight * part) / total) + 0.5) if total else 0


def _single(number: float) -> float:
    found: float = unpack("f", pack("f", number))[0]
    return found
