"""Where retries had better not go: retry host predicates and the retry priority (`envoy.extensions.retry`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from meshlib.balancing.base import Host
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.model.metadata import Struct
from meshlib.policy.rng import Rng


class Avoided(Collection[Host]):
    """The hosts that a retry host predicate turns down: those tried before, canaries (`canary: true` in `envoy.lb`),
    and those with all labels of one of `labels`.
    """

    __slots__ = ("_canaries", "_labels", "_tried")

    def __init__(self, tried: Collection[Host], canaries: bool, labels: Sequence[Struct]) -> None:
        self._tried = tried
        self._canaries = canaries
        self._labels = tuple(label.items for label in labels if label.items)

    def __contains__(self, host: object) -> bool:
        if host in self._tried:
            return True
        if not isinstance(host, Host):
            return False
        metadata = dict(host.metadata)
        if self._canaries and metadata.get("canary") is True:
            return True
        return any(all(metadata.get(key) == value for key, value in label) for label in self._labels)

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._tried)

    def __iter__(self) -> Iterator[Host]:
        return iter(self._tried)


class PreviousPriorities:
    """`previous_priorities`: every `update_frequency` attempts the priorities tried so far are left out of the load;
    when nothing is left they are all let in again (Envoy's `PreviousPrioritiesRetryPriority`). One per call.
    """

    __slots__ = ("_attempted", "_excluded", "_frequency", "_seen")

    def __init__(self, update_frequency: int) -> None:
        self._frequency = update_frequency
        self._attempted: list[int] = []
        self._excluded: frozenset[int] = frozenset()
        self._seen = 0

    def pick(
        self,
        balancer: ClusterBalancer,
        tried: Sequence[Host],
        request_hash: int | None,
        criteria: Struct,
        rng: Rng,
        avoid: Collection[Host],
        again: int,
    ) -> Host | None:
        """The host of a retry; `tried` are those of all attempts so far."""
        self._attempted += [host.priority for host in tried[self._seen :]]
        self._seen = len(tried)
        if self._attempted and len(self._attempted) % self._frequency == 0:
            self._excluded |= frozenset(self._attempted)
            if not balancer.available_beyond(self._excluded, criteria):
                self._excluded, self._attempted = frozenset(), []
        if not self._excluded:
            return balancer.pick(request_hash, criteria, rng, avoid, again)
        return balancer.pick_without(self._excluded, request_hash, criteria, rng, avoid, again)
