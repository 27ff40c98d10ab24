"""Global rate limits of servers, from code."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.engine.filter_states import FilterStates
from meshlib.engine.filters import Verdict
from meshlib.engine.global_limit import GlobalLimitFilter
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.request import RequestHead
from meshlib.policy.rng import Rng


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
