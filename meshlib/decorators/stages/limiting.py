"""`rate_limit`: so many calls in so much time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.decorators.errors import of_refusal
from meshlib.decorators.live import Settings
from meshlib.decorators.modes import mode
from meshlib.decorators.pipeline import Decorator
from meshlib.decorators.steps import Ask, Below, Running, Sleep, Steps
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.policy.notation import local_limit
from meshlib.policy.rate_limit import LocalTokenBucket
from meshlib.policy.shared_limit import SharedRateLimit, SharedVerdict

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


@dataclass(frozen=True, slots=True)
class _Limit:
    limit: str
    wait: float

    def __post_init__(self) -> None:
        if self.limit:
            local_limit(self.limit)
        if self.wait < 0:
            raise ValueError(f"wait={self.wait:g}: seconds, 0 or more")


class rate_limit(Decorator):  # noqa: N801
    """`@rate_limit("100/second")`: a token bucket of this process; calls over it wait for a token up to `wait` seconds
    (0: not at all), or raise `RateLimitedError`. Or `@rate_limit(SharedRateLimit(...))`, shared by all processes.
    """

    def __init__(
        self, limit: str | SharedRateLimit, *, wait: float = 0.0, name: str = "", mesh: Mesh | None = None
    ) -> None:
        self._shared = limit if isinstance(limit, SharedRateLimit) else None
        text = limit if isinstance(limit, str) else ""
        self._settings = Settings("rate_limit", _Limit(text, wait), name, mesh)
        self._bucket = text, None if self._shared is not None else _bucket(text)

    def around(self, call: Running, below: Below) -> Steps:
        """The call with a token."""
        if mode().protects:
            yield from self._shared_token(call) if self._shared is not None else self._token(call)
        return (yield from below(call))

    def _token(self, call: Running) -> Steps:
        policy = self._settings.now()
        text, bucket = self._bucket
        if bucket is None or text != policy.limit:
            bucket = _bucket(policy.limit)
            self._bucket = policy.limit, bucket
        until = call.clock() + policy.wait
        while not bucket.take(now := call.clock()):
            delay = bucket.next_available(now)
            if now + delay > until or not call.leaves(delay):
                raise of_refusal(CallFailure(ResponseFlag.RL, f"over the limit of {policy.limit}", call.name))
            yield Sleep(delay)

    def _shared_token(self, call: Running) -> Steps:
        limit = self._shared
        if limit is None:
            return
        verdict: SharedVerdict = yield Ask(limit.question(RequestHead("CALL", "http", call.name, "/", ())))
        if not verdict.allowed:
            flag = verdict.flag or ResponseFlag.RL
            raise of_refusal(CallFailure(flag, f"over the shared limit {limit.name!r}", call.name))


def _bucket(limit: str) -> LocalTokenBucket:
    bucket = local_limit(limit).token_bucket
    if bucket is None:
        raise ValueError(f"{limit!r} is no limit")
    return LocalTokenBucket(bucket)
