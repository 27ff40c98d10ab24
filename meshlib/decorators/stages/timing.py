"""`timeout`: so long and no longer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from meshlib.decorators.live import Settings
from meshlib.decorators.pipeline import Decorator, timed_out
from meshlib.decorators.steps import Below, ExpiredError, Running, Steps

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


@dataclass(frozen=True, slots=True)
class _Timeout:
    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"a timeout of {self.seconds:g} s: give seconds above 0")


class timeout(Decorator):  # noqa: N801
    """`@timeout(2.0)`: what is below has so many seconds, retries included if they are below. Raises
    `UpstreamTimeoutError`, which is a `TimeoutError`.

    An async function is cancelled. A blocking one cannot be interrupted: calls it makes through the mesh inherit the
    deadline, none begins behind it, a failure behind it counts as a timeout, and a result is returned though late.
    """

    def __init__(self, seconds: float | timedelta, *, name: str = "", mesh: Mesh | None = None) -> None:
        given = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self._settings = Settings("timeout", _Timeout(given), name, mesh)

    def around(self, call: Running, below: Below) -> Steps:
        """The call with an earlier deadline."""
        seconds = self._settings.now().seconds
        deadline = call.clock() + seconds
        try:
            return (yield from below(call.until(deadline)))
        except ExpiredError as error:
            if call.deadline is not None and call.deadline <= deadline:
                raise  # it was somebody else's, further out
            raise timed_out(call.name, f"{call.name} took longer than {seconds:g} s") from error.__cause__
