"""Labels at work: a cluster as its lanes and the nearness of its endpoints make it, and the lane of a request."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.balancing.base import NOT_SERVING
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshlib.model.lanes import BAGGAGE, LaneGroup, Nearby, with_lane
from meshlib.model.lb import LbSubsetConfig, SubsetSelector
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.routing.lanes import LaneRules, Rng, lane_of

if TYPE_CHECKING:
    from meshlib.engine.route import Share

_BAGGAGE = BAGGAGE.encode()
_LB, _LABELS = "envoy.lb", "meshlib.labels"
_REMEMBERED = 256


class LaneChoice:
    """The lanes that a cluster has endpoints for."""

    __slots__ = ("_group", "_known", "_lanes")

    def __init__(self, group: LaneGroup, lanes: Collection[str]) -> None:
        self._group = group
        self._lanes = frozenset(lanes)
        self._known: dict[tuple[int, str], tuple[Share, Share]] = {}

    def lane(self, head: RequestHead) -> str:
        """The lane a request is given here; empty for the baseline."""
        group, _, name = lane_of(head).partition("/")
        return name if group == self._group.name and (self._group.strict or name in self._lanes) else ""

    def share(self, share: Share, head: RequestHead) -> Share:
        """The share of the route with the lane among its criteria. The same object for the same lane, because picks
        remember criteria by identity.
        """
        lane = self.lane(head)
        key = (id(share), lane)
        found = self._known.get(key)
        if found is not None and found[0] is share:
            return found[1]
        made = copy(share)
        made.criteria = Struct(tuple(sorted({**dict(share.criteria.items), self._group.label: lane}.items())))
        if len(self._known) >= _REMEMBERED:  # the names of strict lanes come from callers
            self._known = {}
        self._known[key] = (share, made)
        return made


def by_labels(
    config: Cluster, assignment: ClusterLoadAssignment | None, locality: Locality
) -> tuple[Cluster, ClusterLoadAssignment | None, LaneChoice | None]:
    """The cluster and its endpoints as they are balanced, and the choice among its lanes where it has any."""
    if assignment is None and not config.by_dns:
        assignment = config.load_assignment
    if config.nearby is not None and assignment is not None:
        assignment = _nearby(config.nearby, assignment, locality)
    group = config.lanes
    if group is None:
        return config, assignment, None
    if assignment is None:
        return config, None, LaneChoice(group, ())
    assignment = _everyone_labelled(assignment, group.label)
    lanes = {
        _lane_of(endpoint, group.label)
        for part in assignment.localities
        for endpoint in part.endpoints
        if endpoint.health_status not in NOT_SERVING
    }
    return replace(config, subsets=_subsets(config.subsets, group)), assignment, LaneChoice(group, lanes - {""})


def lane_rules(clusters: Iterable[Cluster]) -> LaneRules | None:
    """The entries of every group that a cluster tells of; None where there are no lanes."""
    groups = [cluster.lanes for cluster in clusters if cluster.lanes is not None]
    return LaneRules(groups) if groups else None


def entered(head: RequestHead, rules: LaneRules, source_ip: str, wall: float, rng: Rng) -> RequestHead:
    """The request of a call with its lane said, for the services further on."""
    said, lane = lane_of(head), rules.choose(head, source_ip, wall, rng)
    if lane == said:
        return head
    return head.like(head.path, handed_on(head.headers, lane))


def handed_on(headers: RawHeaders, lane: str) -> list[tuple[bytes, bytes]]:
    """The headers with the lane in their baggage."""
    baggage = b",".join(value for name, value in headers if name.lower() == _BAGGAGE).decode("latin-1")
    others = [pair for pair in headers if pair[0].lower() != _BAGGAGE]
    return [*others, (_BAGGAGE, with_lane(baggage, lane).encode("latin-1"))]


def _subsets(config: LbSubsetConfig | None, group: LaneGroup) -> LbSubsetConfig:
    """A subset for each lane, and for each lane of each subset. What finds none has no endpoint: the choice of the lane
    has fallen back already, and a subset's own fallback would leave the lane.
    """
    known = config.selectors if config is not None else ()
    keys = {tuple(sorted({*selector.keys, group.label})) for selector in known} | {(group.label,)}
    return LbSubsetConfig(tuple(SubsetSelector(names) for names in sorted(keys)))


def _everyone_labelled(assignment: ClusterLoadAssignment, label: str) -> ClusterLoadAssignment:
    """Endpoints without the label get an empty one, so that the baseline is a lane like the others."""
    parts = [
        replace(part, endpoints=tuple(_labelled(endpoint, label) for endpoint in part.endpoints))
        for part in assignment.localities
    ]
    return replace(assignment, localities=tuple(parts))


def _lane_of(endpoint: LbEndpoint, label: str) -> str:
    """By the endpoint's metadata for balancing, else by its workload's labels; empty for the baseline."""
    metadata = endpoint.metadata
    own = metadata.namespace(_LB).get(label)
    value = metadata.namespace(_LABELS).get(label) if own is None else own
    return value if isinstance(value, str) else ""


def _labelled(endpoint: LbEndpoint, label: str) -> LbEndpoint:
    items, lane = endpoint.metadata.namespace(_LB).items, _lane_of(endpoint, label)
    if dict(items).get(label) == lane:
        return endpoint
    own = Struct(tuple(sorted({**dict(items), label: lane}.items())))
    namespaces = {**dict(endpoint.metadata.namespaces), _LB: own}
    return replace(endpoint, metadata=Metadata(tuple(sorted(namespaces.items(), key=lambda item: item[0]))))


def _nearby(rule: Nearby, assignment: ClusterLoadAssignment, locality: Locality) -> ClusterLoadAssignment:
    """Nearness made priorities, within the priorities there were; those too far away are left out if `strict`."""
    if locality == Locality():
        return assignment  # nobody knows what is near
    places: list[tuple[int, LocalityLbEndpoints]] = []
    for part in assignment.localities:
        distance = max(_distance(part.locality, locality), rule.level)
        if distance > rule.max_level:
            if rule.strict:
                continue
            distance = 4
        places.append((part.priority * 5 + distance, part))
    ranks = {rank: number for number, rank in enumerate(sorted({rank for rank, _ in places}))}
    parts = sorted(((ranks[rank], part) for rank, part in places), key=lambda item: item[0])
    return replace(assignment, localities=tuple(replace(part, priority=number) for number, part in parts))


def _distance(there: Locality, here: Locality) -> int:
    """0 the same sub-zone, 1 the same zone, 2 the same region, 3 elsewhere."""
    if there.region != here.region:
        return 3
    if there.zone != here.zone:
        return 2
    return 0 if there.sub_zone == here.sub_zone else 1
