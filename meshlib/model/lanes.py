"""Lanes: versions of several services that a request keeps to along its whole chain (Polaris calls them swimlanes).

On the wire a group is cluster metadata, `metadata.filter_metadata["meshlib.lanes"]` of each cluster that has lanes,
because xDS has no such resource; a data plane that does not know it ignores it and balances over all endpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from meshlib.model.matchers import RouteMatch
from meshlib.model.route import HashPolicy

__all__ = ["BAGGAGE", "MEMBER", "Lane", "LaneGroup", "LaneRamp", "Nearby", "with_lane"]

BAGGAGE = "baggage"
MEMBER = "mesh-lane"
"""The member of W3C baggage that says a request's lane: `mesh-lane=<group>/<lane>`."""


@dataclass(frozen=True, slots=True)
class LaneRamp:
    """A share that grows from nothing at `start` (seconds of the epoch) to the whole after `duration` seconds, by
    `(elapsed / duration) ** curvature`: 1 is a straight line, 2 begins slowly.
    """

    start: float
    duration: float
    curvature: float = 1.0

    def factor(self, wall: float) -> float:
        """The part of the share that is reached at a time of the epoch, 0 to 1."""
        elapsed = wall - self.start
        if elapsed <= 0:
            return 0.0
        return 1.0 if elapsed >= self.duration else (elapsed / self.duration) ** self.curvature


@dataclass(frozen=True, slots=True)
class Lane:
    """`name` is the value of the endpoints' label. A request enters by any of the `matches`; of those that match
    `share` percent do, chosen at random, or by the hash of `by`, so that one user stays. Without matches a lane is
    entered only by requests that say so themselves, in their baggage.
    """

    name: str
    matches: tuple[RouteMatch, ...] = ()
    share: float = 100.0
    by: tuple[HashPolicy, ...] = ()
    ramp: LaneRamp | None = None


@dataclass(frozen=True, slots=True)
class LaneGroup:
    """The lanes that services have in common. `label` is the key of the endpoints' metadata (namespace `envoy.lb`) that
    names an endpoint's lane; endpoints without it, or with an empty one, are the baseline.

    `strict`: a request of a lane that has no endpoint here fails (UH). Otherwise it goes to the baseline, and is back
    on its lane at the next service that has it.
    """

    name: str
    label: str = "lane"
    strict: bool = False
    lanes: tuple[Lane, ...] = ()


@dataclass(frozen=True, slots=True)
class Nearby:
    """Nearby routing: endpoints as near as `level` first, then level by level as far as `max_level`; `strict` leaves
    out those still farther away, otherwise they are the last to be tried. Levels are 0 sub-zone (campus), 1 zone,
    2 region, 3 everywhere. On the wire `metadata.filter_metadata["meshlib.nearby"]` of a cluster.
    """

    level: int = 1
    max_level: int = 3
    strict: bool = False


def with_lane(baggage: str, lane: str) -> str:
    """A `baggage` header that says the lane, in place of what it said of one."""
    members = [member.strip(" \t") for member in baggage.split(",")]
    others = [member for member in members if member and member.partition("=")[0].strip(" \t") != MEMBER]
    return ",".join([f"{MEMBER}=" + quote(lane, safe="/-._~+"), *others])
