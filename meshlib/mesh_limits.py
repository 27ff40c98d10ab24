"""The limits that a mesh is given in code, by cluster: shared ones are asked by calls, the others are filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.engine.filter_states import FilterStates
    from meshlib.engine.filters import Filter
    from meshlib.policy.shared_limit import SharedRateLimit

Limits = Mapping[str, Sequence[Any]]


def shared_of(limits: Limits) -> dict[str, list[SharedRateLimit]]:
    """Those that several processes share."""
    from meshlib.policy.shared_limit import SharedRateLimit

    return {name: [each for each in given if isinstance(each, SharedRateLimit)] for name, given in limits.items()}


def filters_of(limits: Limits, states: Callable[[], FilterStates]) -> dict[str, list[Filter]]:
    """The others, as filters that count where all filters of the mesh do."""
    from meshlib.engine.request_limit import limit_filter
    from meshlib.policy.shared_limit import SharedRateLimit

    return {
        name: [limit_filter(each, states) for each in given if not isinstance(each, SharedRateLimit)]
        for name, given in limits.items()
    }
