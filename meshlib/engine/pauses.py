"""Filters that cannot decide at once: they wait, or ask somebody, and decide then.

A filter is neither blocking nor asynchronous. It returns what it is to be paused for, and the driver of the call (or of
the request that is served) does it, in its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.engine.commands import Question
    from meshlib.engine.ends import Admit
    from meshlib.engine.filters import LocalReply

Then = Callable[[Any, float], "LocalReply | Pause | Admit | None"]


class Pause:
    """What a filter returns in place of a verdict. `then` gives that, of what came of the pause and of the time it is
    now; it may be the next pause. `give_up` is called in its place when the request has gone away meanwhile, or was not
    wanted any more: for a filter that holds something for it.
    """

    __slots__ = ("give_up", "then")

    def __init__(self, then: Then, give_up: Callable[[], None] | None = None) -> None:
        self.then = then
        self.give_up = give_up or _nothing


class Delay(Pause):
    """Go on in `seconds`; `then` is given None. A request whose deadline comes before is over then. `injected`: the
    delay is a fault (DI).
    """

    __slots__ = ("injected", "seconds")

    def __init__(
        self, seconds: float, then: Then, give_up: Callable[[], None] | None = None, *, injected: bool = False
    ) -> None:
        super().__init__(then, give_up)
        self.seconds = seconds
        self.injected = injected


class Consult(Pause):
    """Ask a question that only I/O can answer; `then` is given the answer. The question bounds its own time."""

    __slots__ = ("question",)

    def __init__(self, question: Question, then: Then, give_up: Callable[[], None] | None = None) -> None:
        super().__init__(then, give_up)
        self.question = question


def _nothing() -> None:
    pass
