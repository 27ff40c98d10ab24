"""What may be decorated, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def is_async(function: Callable[..., Any]) -> bool:
    """Whether it is a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def refuse_generators(function: Any, decorator: str) -> None:
    """Raises TypeError for what cannot be called twice as a whole."""
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"a {decorator} decorates functions, and this is a {kind}; under @{kind}, not above it")
    if inspect.isclass(function):
        raise TypeError(f"{function.__name__} is a class; {decorator} a function or a method")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: it has begun to answer before it can fail, so it cannot be "
            f"retried or timed as one call; {decorator} a function that returns what it has gathered"
        )
