"""Where a caller's requests go first: endpoints by locality, with the priorities and weights that Istio's locality load
balancing gives them for one caller (istiod: `loadbalancer.go`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.labels import NETWORK, parts
from meshlib.sources.istio.workload_entry import Workload

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """The endpoints of one locality (`region/zone/sub_zone`) that have one priority."""

    locality: str
    members: tuple[tuple[Workload, int], ...]
    """Workloads, each with the port it listens on."""

    weight: int
    priority: int = 0


def groups_of(members: Iterable[tuple[Workload, int]]) -> list[Group]:
    """The members by locality, sorted by its name, each weighing what its members weigh."""
    found: dict[str, list[tuple[Workload, int]]] = {}
    for workload, port in members:
        found.setdefault(workload.locality, []).append((workload, port))
    return [_group(locality, tuple(inside)) for locality, inside in sorted(found.items())]


def is_weighted(balancer: Settings, *, fails_over: bool) -> bool:
    """Whether the localities' weights decide (`locality_weighted_lb_config`)."""
    settings = _locality_settings(balancer)
    if settings is None:
        return False
    explicit = settings.get("failover") or settings.get("failoverPriority")
    return bool(settings.get("distribute") or (fails_over and explicit))


def placed(groups: list[Group], balancer: Settings, caller: Caller, *, fails_over: bool) -> list[Group]:
    """The groups as this caller is to use them. `fails_over`: there is outlier detection, without which Istio has all
    localities alike, unless weights are distributed.
    """
    zones = balancer.get("zoneAwareLbSetting")
    if zones is not None:
        return _zone_aware(groups, zones, caller) if zones.get("enabled", True) else groups
    settings = _locality_settings(balancer)
    if settings is None:
        return groups
    if settings.get("distribute"):
        return _distributed(groups, settings["distribute"], caller)
    if not fails_over:
        return groups
    wanted, failover = settings.get("failoverPriority") or [], settings.get("failover") or []
    if wanted:
        groups = _by_labels(groups, wanted, caller)
        if not failover:
            return groups
    return _compact(groups, 5, lambda group: _distance(group.locality, failover, caller))


def _locality_settings(balancer: Settings) -> Settings | None:
    """What is said of localities; by default they are on, with nothing said. None where they are off."""
    if balancer.get("zoneAwareLbSetting") is not None:
        return None
    settings: Settings = balancer.get("localityLbSetting") or {}
    return settings if settings.get("enabled", True) is not False else None


def _group(locality: str, members: tuple[tuple[Workload, int], ...], priority: int = 0) -> Group:
    return Group(locality, members, sum(workload.weight for workload, _ in members), priority)


def _distributed(groups: list[Group], rules: list[dict[str, Any]], caller: Caller) -> list[Group]:
    """The weights of the first rule for the caller's locality; localities it does not name get nothing."""
    rule = next((rule for rule in rules if _matches(caller.locality, rule.get("from", ""))), None)
    if rule is None:
        return groups
    weights: dict[int, int] = {}
    left = set(range(len(groups)))
    for pattern, share in sorted((rule.get("to") or {}).items()):
        chosen = [index for index in sorted(left) if _matches(groups[index].locality, pattern)]
        total = sum(groups[index].weight for index in chosen)
        left.difference_update(chosen)
        weights |= {index: math.ceil(groups[index].weight * share / total) for index in chosen}
    return [
        replace(group, weight=weights[index]) if index in weights else replace(group, members=())
        for index, group in enumerate(groups)
    ]


def _by_labels(groups: list[Group], wanted: list[str], caller: Caller) -> list[Group]:
    """Each endpoint's priority is how many of the labels, in their order, it fails to share with the caller."""
    found: list[Group] = []
    for group in groups:
        by_priority: dict[int, list[tuple[Workload, int]]] = {}
        for member in group.members:
            by_priority.setdefault(_unlike(member[0], wanted, caller), []).append(member)
        found += [_group(group.locality, tuple(members), priority) for priority, members in sorted(by_priority.items())]
    return _compact(found, 1, lambda group: 0)


def _unlike(workload: Workload, wanted: list[str], caller: Caller) -> int:
    """0 is a workload with the caller's values of all labels. Another network, where it is first, only adds."""
    own, theirs, adjust = dict(caller.labels), dict(workload.labels), 0
    for index, entry in enumerate(wanted):
        name, _, value = entry.partition("=")
        if (value if "=" in entry else own.get(name, "")) == theirs.get(name, ""):
            continue
        if index == 0 and entry == NETWORK:
            adjust = len(wanted)
            continue
        return adjust + len(wanted) - index
    return adjust


def _distance(locality: str, failover: list[dict[str, str]], caller: Caller) -> int:
    """0: the caller's locality, 1: its zone, 2: its region, 3: another region, 4: one that is no failover's target."""
    ours, theirs = parts(caller.locality), parts(locality)
    for near, count in ((0, 3), (1, 2), (2, 1)):
        if ours[:count] == theirs[:count]:
            return near
    target = next((rule.get("to") for rule in failover if rule.get("from") == ours[0]), theirs[0])
    return 3 if target == theirs[0] else 4


def _zone_aware(groups: list[Group], settings: Settings, caller: Caller) -> list[Group]:
    """By region only: within the caller's the zones are balanced by the client's own zone-aware routing."""
    if wanted := settings.get("failoverPriority"):
        groups = _by_labels(groups, wanted, caller)
    region = parts(caller.locality)[0]
    target = next((rule.get("to") for rule in settings.get("failover") or () if rule.get("from") == region), None)

    def bucket(group: Group) -> int:
        theirs = parts(group.locality)[0]
        return 0 if theirs == region else 1 if target is not None and theirs == target else 2

    return _compact(groups, 3, bucket)


def _compact(groups: list[Group], buckets: int, bucket: Callable[[Group], int]) -> list[Group]:
    """Priorities refined by the bucket of each group, numbered from 0 without gaps."""
    refined = [group.priority * buckets + bucket(group) for group in groups]
    order = {priority: index for index, priority in enumerate(sorted(set(refined)))}
    return [replace(group, priority=order[priority]) for group, priority in zip(groups, refined, strict=True)]


def _matches(locality: str, rule: str) -> bool:
    """`*` in a rule is anything, and so is what it leaves out behind the region."""
    (region, *ours), (wanted, *rest) = parts(locality), parts(rule)
    return wanted in {"*", region} and all(want in {"*", "", have} for want, have in zip(rest, ours, strict=True))
