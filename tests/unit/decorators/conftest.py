"""Functions to decorate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

KINDS = ("sync", "async")
Make = Callable[..., Callable[..., Any]]


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest) -> Make:
    """`made(script, *decorators)`: a function of either kind that does what the script says, call after call (an
    exception is raised, a value returned, the last one for ever), decorated from the last decorator to the first; it is
    called blocking.
    """

    def make(script: list[Any], *decorators: Any) -> Callable[..., Any]:
        calls: list[Any] = []

        def play(*args: Any) -> Any:
            calls.append(args)
            what = script[min(len(calls), len(script)) - 1]
            if isinstance(what, BaseException) or (isinstance(what, type) and issubclass(what, BaseException)):
                raise what
            return what

        async def aplay(*args: Any) -> Any:
            return play(*args)

        function: Any = play if request.param == "sync" else aplay
        for decorator in reversed(decorators):
            function = decorator(function)

        def call(*args: Any) -> Any:
            return function(*args) if request.param == "sync" else asyncio.run(function(*args))

        call.calls = calls  # type: ignore[attr-defined]
        call.function = function  # type: ignore[attr-defined]
        return call

    return make
