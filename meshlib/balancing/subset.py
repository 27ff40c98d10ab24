"""Subsets by endpoint metadata (`envoy.lb`), as Envoy's subset load balancer finds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from meshlib.balancing.base import Host
from meshlib.model.lb import LbSubsetConfig
from meshlib.model.metadata import Struct, Value

SubsetKey: TypeAlias = "tuple[tuple[str, str], ...]"

FALLBACK: SubsetKey = ()


class SubsetIndex:
    """Which hosts are in which subset. Health does not matter here: a subset without a healthy host is still the one
    meant, and has its own priorities and panic.
    """

    __slots__ = ("_hosts",)

    def __init__(self, config: LbSubsetConfig, hosts: Sequence[Host]) -> None:
        members: dict[SubsetKey, list[Host]] = {}
        selectors = {tuple(sorted(selector.keys)) for selector in config.selectors if selector.keys}
        for host in hosts:
            metadata = dict(host.metadata)
            for keys in selectors:
                if all(key in metadata for key in keys):
                    members.setdefault(subset_key((key, metadata[key]) for key in keys), []).append(host)
        self._hosts = {key: tuple(found) for key, found in members.items()}
        fallback = _fallback(config, hosts)
        if fallback is not None:
            self._hosts[FALLBACK] = fallback

    def find(self, criteria: Struct) -> SubsetKey | None:
        """The subset whose keys are exactly those of the criteria and whose values are equal, else the fallback, else
        None: no host may be used.
        """
        key = subset_key(criteria.items)
        if key in self._hosts:
            return key
        return FALLBACK if FALLBACK in self._hosts else None

    def hosts(self, key: SubsetKey) -> tuple[Host, ...]:
        """The subset's hosts in any health."""
        return self._hosts[key]


def subset_key(items: Iterable[tuple[str, Value]]) -> SubsetKey:
    """Items, sorted by name, as one hashable value. By `repr`, because Python's True equals 1.0 and JSON's does not."""
    return tuple((name, repr(value)) for name, value in items)


def _fallback(config: LbSubsetConfig, hosts: Sequence[Host]) -> tuple[Host, ...] | None:
    if config.fallback_policy == "NO_FALLBACK":
        return None
    if config.fallback_policy == "ANY_ENDPOINT":
        return tuple(hosts)
    wanted = set(subset_key(config.default_subset.items))
    return tuple(host for host in hosts if wanted <= set(subset_key(host.metadata)))
