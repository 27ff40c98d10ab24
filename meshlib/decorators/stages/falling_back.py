"""`fallback`: something in the place of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.decorators.pipeline import Decorator
from meshlib.decorators.steps import Below, ExpiredError, Recover, Running, Steps

_NO_VALUE: Any = object()


class fallback(Decorator):  # noqa: N801
    """`@fallback(cached_price)`: where what is below raises, `cached_price` is called with the same arguments, and its
    result is the result; `@fallback(value=None)` needs no function. `on`: the exceptions this is for (any Exception;
    `MeshError` alone for what the mesh and the decorators refuse).

    A fallback function for an async function may be async itself. Inside it `current_failure()` is what was raised; an
    exception of its own has it as its `__context__`.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        value: Any = _NO_VALUE,
        on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    ) -> None:
        if (function is None) is (value is _NO_VALUE):
            raise TypeError("fallback(function) or fallback(value=...), one of the two")
        self._function = function
        self._value = value
        self._on = on

    def around(self, call: Running, below: Below) -> Steps:
        """The call, or the other one."""
        try:
            return (yield from below(call))
        except ExpiredError:
            raise  # the caller's own deadline: nobody waits for a fallback
        except self._on as error:
            if self._function is None:
                return self._value
            return (yield Recover(call, self._function, error))
