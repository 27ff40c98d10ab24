"""Lanes: which lane a request is on, and which endpoints a cluster has for it.

The lane travels as one member of W3C baggage, `mesh-lane=<group>/<lane>`, written where a request first meets the mesh
and read everywhere after. `mesh-lane=<group>/` says that it was decided and the request is on none, so that nobody
draws again; several groups are joined by `+`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

from meshlib.model.lanes import BAGGAGE, MEMBER, Lane, LaneGroup
from meshlib.model.request import RequestHead
from meshlib.routing.hashing import RequestHasher, compile_hash
from meshlib.routing.matchers import Predicate, compile_match

_SLOTS = 1_000_000  # of a share decided by a hash


class Rng(Protocol):
    """What is needed of `random.Random`."""

    def random(self) -> float:
        """A float in [0, 1)."""


def lane_of(head: RequestHead) -> str:
    """The `<groups>/<lane>` that a request says in its baggage; empty when it does not say."""
    for baggage in head.get_all(BAGGAGE):
        if MEMBER in baggage:
            for member in baggage.split(","):
                key, _, value = member.partition(";")[0].partition("=")
                if key.strip(" \t") == MEMBER:
                    return unquote(value.strip(" \t"))
    return ""


class LaneRules:
    """The entries of every group that a plan knows."""

    __slots__ = ("_entries",)

    def __init__(self, groups: Iterable[LaneGroup]) -> None:
        known = {group.name: group for group in groups}  # a group is said by each of its clusters
        self._entries = {
            name: entries
            for name, group in sorted(known.items())
            if (entries := tuple(_Entry(lane) for lane in group.lanes if lane.matches))
        }

    def choose(self, head: RequestHead, source_ip: str, wall: float, rng: Rng) -> str:
        """What the request says of its lane from here on, in the words of `lane_of`: the first lane of the first group
        that takes it, if nobody before has decided about that group. `wall` is the time of the epoch.
        """
        said = lane_of(head)
        groups, _, lane = said.partition("/")
        if lane or not self._entries:
            return said
        decided = groups.split("+") if groups else []
        for group, entries in self._entries.items():
            if group not in decided:
                for entry in entries:
                    if entry.takes(head, source_ip, wall, rng):
                        return f"{group}/{entry.lane.name}"
        return "+".join(sorted({*decided, *self._entries})) + "/"


class _Entry:
    """The compiled entry of one lane."""

    __slots__ = ("_hasher", "_matches", "lane")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._matches: tuple[tuple[Predicate, ...], ...] = tuple(compile_match(match) for match in lane.matches)
        self._hasher: RequestHasher | None = compile_hash(lane.by)

    def takes(self, head: RequestHead, source_ip: str, wall: float, rng: Rng) -> bool:
        """Whether the request enters the lane."""
        if not any(all(predicate(head) for predicate in match) for match in self._matches):
            return False
        lane = self.lane
        share = lane.share / 100.0 * (lane.ramp.factor(wall) if lane.ramp is not None else 1.0)
        if share >= 1.0:
            return True
        if self._hasher is None:
            return rng.random() < share
        found = self._hasher(head, source_ip)
        # A request that nothing tells from others (it has no cookie yet) would not stay: it keeps to the baseline.
        return found is not None and found.hash % _SLOTS < share * _SLOTS
