"""`retry`: call again what failed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.decorators.live import Settings
from meshlib.decorators.modes import mode
from meshlib.decorators.pipeline import Decorator
from meshlib.decorators.steps import Below, ExpiredError, Running, Sleep, Steps
from meshlib.errors import RateLimitedError, UpstreamOverflowError
from meshlib.model.cluster import RetryBudget
from meshlib.policy.backoff import backoff

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

Errors = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
BUDGET = RetryBudget()
REFUSED = (UpstreamOverflowError, RateLimitedError)
"""What protects says no, and would say no again at once."""


@dataclass(frozen=True, slots=True)
class _Retry:
    attempts: int
    base_interval: float
    max_interval: float

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: a function is called at least once")
        if self.base_interval < 0 or self.max_interval < 0:
            raise ValueError("intervals are seconds, 0 or more")


class retry(Decorator):  # noqa: N801  a decorator's name is what is written under the @
    """`@retry()` calls the function up to `attempts` times (3, the first one included) while it raises what `on` says:
    a class, classes, or a function of the exception (any Exception). What breakers, limits and bulkheads below refuse
    is not tried again unless `on` names it. `on_result` says of a result whether it is to be tried again; the last one
    is returned.

    Between attempts it waits a random part of `base_interval` x 2^n seconds, `max_interval` at most (Envoy's: 0.025 and
    0.25). No attempt begins that the deadline would overtake. `budget`: only so many of the calls under way may be
    retries, over all functions under this object (Envoy's: 20 %, but 3 at least); None is no budget, and a storm.

    Only for what may be done twice. `name` and `mesh`: see `meshlib.decorators`.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        on: Errors = Exception,
        on_result: Callable[[Any], bool] | None = None,
        base_interval: float = 0.025,
        max_interval: float = 0.25,
        budget: RetryBudget | None = BUDGET,
        name: str = "",
        mesh: Mesh | None = None,
    ) -> None:
        self._settings = Settings("retry", _Retry(attempts, base_interval, max_interval), name, mesh)
        self._is_wanted = _test_of(on)
        self._on_result = on_result
        self._budget = budget
        self._calls: dict[object, None] = {}
        self._retries: dict[object, None] = {}
        self._random = random.Random()  # noqa: S311  it spreads load

    def around(self, call: Running, below: Below) -> Steps:
        """The attempts."""
        token, number = object(), 0
        self._calls[token] = None
        try:
            while True:
                number += 1
                try:
                    result = yield from below(call)
                except ExpiredError:
                    raise
                except Exception as error:
                    delay = self._delay(number, token, call) if self._is_wanted(error) else None
                    if delay is None:
                        raise
                else:
                    again = self._on_result is not None and self._on_result(result)
                    delay = self._delay(number, token, call) if again else None
                    if delay is None:
                        return result
                yield Sleep(delay)
        finally:
            self._calls.pop(token, None)
            self._retries.pop(token, None)

    def _delay(self, number: int, token: object, call: Running) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        policy, most = self._settings.now(), mode().attempts
        if number >= (policy.attempts if most is None else min(policy.attempts, most)):
            return None
        delay = backoff(number, policy.base_interval, policy.max_interval, self._random)
        return delay if call.leaves(delay) and self._may(token) else None

    def _may(self, token: object) -> bool:
        """Whether the budget bears one more retry. It is one from its back-off on: in a storm all wait to retry."""
        budget, retries = self._budget, self._retries
        if budget is None or token in retries:
            return True
        retries[token] = None
        if len(retries) <= max(budget.min_retry_concurrency, int(budget.budget_percent / 100.0 * len(self._calls))):
            return True
        retries.pop(token, None)
        return False


def _test_of(on: Errors) -> Callable[[BaseException], bool]:
    if isinstance(on, type):
        on = (on,)
    if isinstance(on, tuple):
        wanted = on
        named = any(issubclass(kind, REFUSED) for kind in wanted)
        return lambda error: isinstance(error, wanted) and (named or not isinstance(error, REFUSED))
    if not callable(on):
        raise TypeError(f"on={on!r}: give an exception class, classes, or a function of the exception")
    return on
