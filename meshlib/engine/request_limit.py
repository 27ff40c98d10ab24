"""The filter `meshlib.rate_limit`: limiters beyond the token bucket, for all requests or for each value of a key."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from meshlib.engine.ends import Admit
from meshlib.engine.filter_states import FilterStates
from meshlib.engine.filters import Filter, LocalReply
from meshlib.engine.local_limit import LocalRateLimitFilter, seconds_up, with_retry_after
from meshlib.engine.pauses import Consult, Delay
from meshlib.engine.served_limits import ServedGlobalLimit
from meshlib.flags import ResponseFlag
from meshlib.model.filters import FilterConfig, LocalRateLimit
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.limiters import ConcurrencyLimit, LimitHeaders, RequestLimit
from meshlib.model.request import RequestHead
from meshlib.policy.keyed import Keyed
from meshlib.policy.limit_key import bounded
from meshlib.policy.limiters import AT_ONCE, Limits, Place, make_limits
from meshlib.policy.notation import local_limit
from meshlib.policy.rng import Rng
from meshlib.policy.shared_limit import SharedRateLimit, SharedVerdict
from meshlib.routing.headers import Headers
from meshlib.routing.request_key import compile_key

LocalLimit = LocalRateLimit | RequestLimit | str
"""A limit of this process as code gives it: Envoy's filter, one of ours, or a text as `100/minute`."""
RateLimitConfig = LocalLimit | SharedRateLimit | GlobalRateLimit
"""The same of a server, which may share its limit with others, or ask a service."""
_RESOURCE_EXHAUSTED = 8
_TOO_MANY_REQUESTS, _UNAVAILABLE = 429, 503
_NO_VALUE = ""


class RequestLimitFilter:
    """One filter: its limiters are those of every route it stands on."""

    __slots__ = ("__weakref__", "_all", "_grpc_status", "_key", "_keyed", "_tells", "config")

    def __init__(self, config: RequestLimit) -> None:
        self.config = config
        self._key = compile_key(config.key)
        self._all = make_limits(config.limiter) if self._key is None else None
        self._keyed: Keyed[str, Limits] = Keyed(lambda key, now: make_limits(config.limiter), config.max_keys)
        self._grpc_status = _RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None
        self._tells = config.headers != "none" and not isinstance(config.limiter, ConcurrencyLimit)

    @property
    def keys(self) -> int:
        """How many values it remembers."""
        return len(self._keyed)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Delay | Admit | None:
        """Let pass, at once or after a wait, or answer."""
        limits = self._all or self._keyed.get(self._value(head), now)
        place = limits.take(now)
        if place is AT_ONCE and not self._tells:
            return None
        if place is None:
            return self._refused(limits, now)
        if place.wait > 0.0:
            return Delay(place.wait, lambda answer, at: self._admitted(limits, AT_ONCE), place.leave)
        return self._admitted(limits, place)

    def _value(self, head: RequestHead) -> str:
        found = None if self._key is None else self._key(head)
        return _NO_VALUE if found is None else bounded(found)

    def _admitted(self, limits: Limits, place: Place) -> Admit | None:
        leave = place.leave
        on_end = None if leave is None else lambda end: leave()
        tell = partial(self._figures, limits) if self._tells else None
        return None if on_end is None and tell is None else Admit(on_end, on_response=tell)

    def _figures(self, limits: Limits, now: float) -> Headers:
        config = self.config
        return written(
            config.headers, config.name, limits.limit, limits.window, limits.remaining(now), limits.reset(now)
        )

    def _refused(self, limits: Limits, now: float) -> LocalReply:
        config, wait = self.config, limits.reset(now)
        headers: Headers = self._figures(limits, now) if self._tells else []
        if config.retry_after and math.isfinite(wait):
            headers = with_retry_after(headers, wait)
        return LocalReply(
            config.status, headers, b"local_rate_limited", ResponseFlag.RL, config.name, self._grpc_status
        )


class SharedLimitFilter:
    """A limit that a store keeps, on the requests of a server. Refused by the limit they get 429; by the absence of the
    store, 503.
    """

    __slots__ = ("_limit", "config")

    def __init__(self, limit: SharedRateLimit) -> None:
        self._limit = limit
        self.config = FilterConfig()

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Consult:
        """Ask the store."""
        return Consult(self._limit.question(head), lambda verdict, at: self._decided(verdict))

    def _decided(self, verdict: SharedVerdict) -> LocalReply | Admit | None:
        headers = self._figures(verdict)
        if verdict.allowed:
            return Admit(on_response=lambda at: headers) if headers else None
        if verdict.reset is not None:
            headers = with_retry_after(headers, verdict.reset)
        status = _UNAVAILABLE if verdict.flag is ResponseFlag.RLSE else _TOO_MANY_REQUESTS
        return LocalReply(status, headers, b"rate_limited", verdict.flag, self._limit.name)

    def _figures(self, verdict: SharedVerdict) -> Headers:
        style, limit = self._limit.headers, self._limit
        if style == "none" or verdict.remaining is None or verdict.reset is None:
            return []
        return written(style, limit.name, verdict.limit, limit.window, verdict.remaining, verdict.reset)


def written(style: LimitHeaders, name: str, limit: int, window: float, left: float, seconds: float) -> Headers:
    """What a response says of a limit of so many requests in a window, of which some are `left`; the next one is
    there, or the window over, in so many `seconds`.
    """
    remaining, reset = int(left), seconds_up(seconds)
    if style == "structured":
        quoted = name.replace("\\", "").replace('"', "").encode("ascii", "replace")
        return [
            (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (quoted, limit, max(1, seconds_up(window)))),
            (b"ratelimit", b'"%s";r=%d;t=%d' % (quoted, remaining, reset)),
        ]
    prefix = b"x-ratelimit-" if style == "x-ratelimit" else b"ratelimit-"
    figures = ((b"limit", limit), (b"remaining", remaining), (b"reset", reset))
    return [(prefix + figure, b"%d" % value) for figure, value in figures]


def limit_filter(limit: RateLimitConfig, states: Callable[[], FilterStates] = FilterStates) -> Filter:
    """The filter of a limit from code; `states` are the mesh's. Raises ValueError for a text that is no limit, and for
    a global limit without `rate_limits` of its own.
    """
    if isinstance(limit, GlobalRateLimit):
        return ServedGlobalLimit(limit, states)
    if isinstance(limit, RequestLimit):
        return RequestLimitFilter(limit)
    if isinstance(limit, SharedRateLimit):
        return SharedLimitFilter(limit)
    return LocalRateLimitFilter(local_limit(limit) if isinstance(limit, str) else limit, states())
