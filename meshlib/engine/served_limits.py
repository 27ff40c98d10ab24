"""Rate limits of servers, from code."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshlib.engine.filter_states import FilterStates
from meshlib.engine.filters import Filter, Verdict
from meshlib.engine.global_limit import GlobalLimitFilter
from meshlib.engine.local_limit import LocalRateLimitFilter
from meshlib.model.global_rate_limit import GlobalRateLimit, ServerLimit
from meshlib.model.request import RequestHead
from meshlib.policy.notation import local_limit
from meshlib.policy.rng import Rng


def served_limits(limits: Iterable[ServerLimit], states: Callable[[], FilterStates]) -> tuple[Filter, ...]:
    """The filters of a server, in order. `states` are the mesh's, which a forked child has anew. Raises ValueError for
    a text that is no limit, and for a global limit without `rate_limits`: there is no route that could have them.
    """
    return tuple(_filter(limit, states) for limit in limits)


def _filter(limit: ServerLimit, states: Callable[[], FilterStates]) -> Filter:
    if isinstance(limit, GlobalRateLimit):
        return ServedGlobalLimit(limit, states)
    return LocalRateLimitFilter(local_limit(limit) if isinstance(limit, str) else limit)


class ServedGlobalLimit:
    """A global limit, made for the states it meets."""

    def __init__(self, config: GlobalRateLimit, states: Callable[[], FilterStates]) -> None:
        if not config.rate_limits:
            raise ValueError(f"the global rate limit of domain {config.domain!r} has no rate_limits of its own")
        self.config = config
        self._states = states
        self._made: tuple[FilterStates, str, GlobalLimitFilter] | None = None

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Verdict:
        """Ask."""
        made, states = self._made, self._states()
        if made is None or made[0] is not states or made[1] != states.source_cluster:
            made = self._made = (states, states.source_cluster, GlobalLimitFilter(self.config, states))
        return made[2].on_request(head, now, rng)
