"""A decorator played by hand: no thread, no loop, and a clock that its sleeps move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.decorators.steps import Invoke, Running, Sleep, Steps


class StageClock:
    """A call's clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def play(self, flow: Steps, results: Iterator[Any]) -> Any:
        """Run a pipeline; the function's results (or exceptions) come from `results`, each after a second."""
        answer, error = None, None
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as end:
                return end.value
            answer = error = None
            if isinstance(step, Sleep):
                self.now += step.seconds
                self.slept.append(step.seconds)
            else:
                assert isinstance(step, Invoke)
                self.now += 1.0
                answer = next(results)
                if isinstance(answer, BaseException):
                    answer, error = None, answer

    def run(self, stage: Any, *results: Any, deadline: float | None = None) -> Any:
        """One call of a function under one decorator."""
        call = Running("f", print, (), {}, deadline, lambda: self.now)

        def below(call: Running) -> Steps:
            return (yield Invoke(call))

        return self.play(stage.around(call, below), iter(results))
