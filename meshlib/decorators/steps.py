"""What a pipeline of decorators asks its driver to do.

A stage is a generator around the stages below it, and knows nothing of threads or event loops: it yields one of these
and is sent what came of it, or is thrown what was raised. So each stage is written once, for functions of both kinds.

    step       the driver ...                                                      sends back
    Invoke     calls the function                                                  its result
    Sleep      waits                                                               None
    Ask        asks a question that only I/O can answer                            the answer
    Park       waits until a ticket is called, at most so many seconds             whether it was
    Race       carries several runs of the stages below at the same time           the result of the first that succeeds
    Recover    calls another function in the place of the decorated one            its result
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from meshlib.engine.commands import Question

Steps = Generator["Step", Any, Any]
Below = Callable[["Running"], Steps]
"""The stages below, run once."""


@dataclass(frozen=True, slots=True)
class Running:
    """One call of a decorated function. `deadline` is monotonic seconds, None for none; `clock` says the time it is."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    deadline: float | None
    clock: Callable[[], float]

    def until(self, deadline: float) -> Running:
        """The same with a deadline, unless the one it has is earlier."""
        if self.deadline is not None and self.deadline <= deadline:
            return self
        return replace(self, deadline=deadline)

    def leaves(self, seconds: float) -> bool:
        """Whether there is more time left than so many seconds."""
        return self.deadline is None or self.clock() + seconds < self.deadline


class Stage(Protocol):
    """One decorator's part in a call."""

    def around(self, call: Running, below: Below) -> Steps:
        """The call: `yield from below(call)` is the rest of it."""


@dataclass(frozen=True, slots=True)
class Step:
    """Base of all steps."""


@dataclass(frozen=True, slots=True)
class Invoke(Step):
    """Call the function. Raises `ExpiredError` when the deadline has passed meanwhile."""

    call: Running


@dataclass(frozen=True, slots=True)
class Sleep(Step):
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ask(Step):
    """Ask `question`."""

    question: Question


class Ticket:
    """A place in a queue. `call` may be made by any thread, before or after somebody waits for it."""

    __slots__ = ("_called", "_wake")

    def __init__(self) -> None:
        self._called = False
        self._wake: Callable[[], object] | None = None

    def call(self) -> None:
        """It is the ticket's turn."""
        self._called = True
        wake = self._wake
        if wake is not None:
            wake()

    def on_call(self, wake: Callable[[], object]) -> None:
        """Have `wake` called when it is; at once when it was already, perhaps twice."""
        self._wake = wake
        if self._called:
            wake()

    @property
    def called(self) -> bool:
        """Whether it was its turn."""
        return self._called


@dataclass(frozen=True, slots=True)
class Park(Step):
    """Wait for a ticket's turn."""

    ticket: Ticket
    seconds: float


@dataclass(frozen=True, slots=True)
class Race(Step):
    """Begin a run; whenever `delay` seconds have passed and none has ended well, another, `most` in all. Where all that
    have begun have failed, the last one's error is raised.
    """

    begin: Callable[[], Steps]
    delay: float
    most: int


@dataclass(frozen=True, slots=True)
class Recover(Step):
    """Call `function` with the call's arguments, because of `error`."""

    call: Running
    function: Callable[..., Any]
    error: BaseException


class ExpiredError(TimeoutError):
    """The deadline of a call has passed. Never seen by callers: the stage that set the deadline says what it means."""
