"""Decorators that are stages of one pipeline: the one written first is the one that a call comes to first."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

from meshlib.context import current
from meshlib.decorators.errors import of_refusal
from meshlib.decorators.functions import is_async, refuse_generators
from meshlib.decorators.running import adrive, drive
from meshlib.decorators.steps import ExpiredError, Invoke, Running, Stage, Steps
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag

P = ParamSpec("P")
R = TypeVar("R")
_MARK = "__meshlib_pipeline__"


class Decorator:
    """A decorator that keeps the function's type. One object may decorate many functions, which then share what it
    counts: a breaker, a bucket, a budget.
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The decorated function. Raises TypeError for generators and classes."""
        refuse_generators(function, type(self).__name__)
        pipeline = _pipeline_of(function)
        stages = (cast("Stage", self), *(pipeline.stages if pipeline is not None else ()))
        made: Callable[P, R] = _decorated(_Pipeline(stages, function if pipeline is None else pipeline.function))
        return made


class _Pipeline:
    """The stages from the first to the last, the function below them, and what was made of both."""

    __slots__ = ("function", "made", "name", "stages")

    def __init__(self, stages: tuple[Stage, ...], function: Callable[..., Any]) -> None:
        self.stages = stages
        self.function = function
        self.name: str = getattr(function, "__qualname__", type(function).__name__)
        self.made: Callable[..., Any] | None = None

    def flow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Steps:
        """One call."""
        deadline = current.get().deadline
        call = Running(self.name, self.function, args, kwargs, deadline, time.monotonic)
        try:
            return (yield from self._from(0, call))
        except ExpiredError as error:  # nobody's here: the deadline of the request that is being served
            raise timed_out(self.name, "the deadline it inherited has passed") from error.__cause__

    def _from(self, index: int, call: Running) -> Steps:
        if index == len(self.stages):
            return (yield Invoke(call))
        return (yield from self.stages[index].around(call, partial(self._from, index + 1)))


def stages_of(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The decorators of a function, the first one first; empty for any other function."""
    pipeline = _pipeline_of(function)
    return () if pipeline is None else pipeline.stages


def timed_out(name: str, why: str) -> Exception:
    """What a call without time raises: `UpstreamTimeoutError`, which is a TimeoutError as well."""
    return of_refusal(CallFailure(ResponseFlag.UT, why, name))


def _pipeline_of(function: Callable[..., Any]) -> _Pipeline | None:
    found: _Pipeline | None = getattr(function, _MARK, None)
    # `functools.wraps` copies the mark onto wrappers of others, which are not to be gone past.
    return found if found is not None and found.made is function else None


def _decorated(pipeline: _Pipeline) -> Any:
    function = pipeline.function

    @wraps(function)
    def blocking(*args: Any, **kwargs: Any) -> Any:
        return drive(pipeline.flow(args, kwargs))

    @wraps(function)
    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        return await adrive(pipeline.flow(args, kwargs))

    made: Any = asynchronous if is_async(function) else blocking
    pipeline.made = made
    setattr(made, _MARK, pipeline)
    return made
