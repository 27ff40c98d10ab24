"""What a rate limit filter has done, under Envoy's names."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.state.counter import Counter


class LimitStats:
    """`<stat_prefix>.http_local_rate_limit.*`. `ok`: requests with a token; `rate_limited`: without; `enforced`: of
    these, refused; `shadow_mode`: of these, let pass because only descriptors in shadow mode were over their limits.
    """

    __slots__ = ("enforced", "ok", "prefix", "rate_limited", "shadow_mode")

    def __init__(self, prefix: str) -> None:
        self.prefix = f"{prefix}.http_local_rate_limit"
        self.ok = Counter()
        self.rate_limited = Counter()
        self.enforced = Counter()
        self.shadow_mode = Counter()

    def values(self) -> Iterator[tuple[str, int]]:
        """Name and value. Every request that the filter is enabled for is either ok or rate limited."""
        ok, limited = self.ok.value, self.rate_limited.value
        yield f"{self.prefix}.enabled", ok + limited
        yield f"{self.prefix}.ok", ok
        yield f"{self.prefix}.rate_limited", limited
        yield f"{self.prefix}.enforced", self.enforced.value
        yield f"{self.prefix}.shadow_mode", self.shadow_mode.value
