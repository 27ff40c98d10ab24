"""A guarded function of both kinds, scripted: what each attempt does, and what was seen of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from meshlib import Attempt, Mesh, current_attempt

KINDS = ("sync", "async")


class Script:
    """A function that returns, raises or takes as long as each `step` says; the last step goes on for ever.

    A step is a value, an exception, or a float: seconds to take before it returns "late". `attempts` are what it saw.
    """

    def __init__(self, kind: str, mesh: Mesh, *steps: Any, **options: Any) -> None:
        self.kind = kind
        self._steps = list(steps)
        self.attempts: list[Attempt | None] = []
        inner: Callable[[], Any] = self._blocking if kind == "sync" else self._awaited
        self._guarded = mesh.guard(options.pop("service", "payments"), **options)(inner)

    def __call__(self, runner: asyncio.Runner | None = None) -> Any:
        """Call it, whichever kind it is, in a loop of its own or that of `runner`."""
        if self.kind == "sync":
            return self._guarded()
        return asyncio.run(self._guarded()) if runner is None else runner.run(self._guarded())

    @property
    def calls(self) -> int:
        return len(self.attempts)

    def _next(self) -> Any:
        self.attempts.append(current_attempt())
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, BaseException):
            raise step
        return step

    def _blocking(self) -> Any:
        step = self._next()
        if isinstance(step, float):
            time.sleep(step)
            return "late"
        return step

    async def _awaited(self) -> Any:
        step = self._next()
        if isinstance(step, float):
            await asyncio.sleep(step)
            return "late"
        return step
