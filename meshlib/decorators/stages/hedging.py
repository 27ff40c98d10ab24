"""`hedge`: ask a second time what is slow to answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from meshlib.decorators.live import Settings
from meshlib.decorators.modes import mode
from meshlib.decorators.pipeline import Decorator
from meshlib.decorators.steps import Below, Race, Running, Steps

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


@dataclass(frozen=True, slots=True)
class _Hedge:
    delay: float
    most: int

    def __post_init__(self) -> None:
        if self.delay < 0 or self.most < 1:
            raise ValueError(f"hedge(delay={self.delay:g}, most={self.most}): seconds, 0 or more, and one call or more")


class hedge(Decorator):  # noqa: N801
    """`@hedge(0.1)`: where there is no result after `delay` seconds another call of what is below begins beside the
    first, `most` in all (2); the first result counts. An async call that lost is cancelled; a blocking one runs on, on
    a thread of its own, and nobody hears of it. Only for what may be done twice.
    """

    def __init__(self, delay: float, *, most: int = 2, name: str = "", mesh: Mesh | None = None) -> None:
        self._settings = Settings("hedge", _Hedge(delay, most), name, mesh)

    def around(self, call: Running, below: Below) -> Steps:
        """The race."""
        policy = self._settings.now()
        if policy.most < 2 or mode().attempts == 1:
            return (yield from below(call))
        return (yield Race(partial(below, call), policy.delay, policy.most))
