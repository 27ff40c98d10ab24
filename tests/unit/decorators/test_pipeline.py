"""`fallback`, decorators stacked, what they leave as it was, and the mode for tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, assert_type

import pytest

from meshlib import CircuitOpenError
from meshlib.decorators import (
    bulkhead,
    circuit_breaker,
    current_failure,
    fallback,
    for_tests,
    hedge,
    rate_limit,
    retry,
    stages_of,
    timeout,
)
from parts.stage_clock import StageClock

Make = Callable[..., Callable[..., Any]]


# ------------------------------------------------------------------------------------------------------- fallback


def test_a_fallback_has_the_arguments_and_the_failure(made: Make) -> None:
    def instead(*args: Any) -> Any:
        return args, type(current_failure())

    assert made([OSError], fallback(instead))(1, 2) == ((1, 2), OSError)
    assert current_failure() is None
    assert made([OSError], fallback(value=None))() is None
    with pytest.raises(ValueError, match="not this"):
        made([ValueError("not this")], fallback(value=0, on=OSError))()


async def test_an_async_fallback_and_one_that_fails() -> None:
    async def instead() -> str:
        await asyncio.sleep(0)
        return "instead"

    async def fails_too() -> None:
        raise KeyError("too")

    @fallback(instead)
    async def first() -> str:
        raise OSError

    @fallback(fails_too)
    async def second() -> None:
        raise OSError("first")

    assert await first() == "instead"
    with pytest.raises(KeyError) as raised:
        await second()
    assert isinstance(raised.value.__context__, OSError)


# ------------------------------------------------------------------------------------------------------- together


def test_text_order_is_pipeline_order(made: Make) -> None:
    policy = circuit_breaker(fail_max=2, reset_timeout=60.0)
    function = made([OSError], fallback(value="cached"), retry(5, base_interval=0.0), timeout(1.0), policy)
    assert function() == "cached"
    assert len(function.calls) == 2, "the breaker was open for the third attempt, which is not retried"  # type: ignore[attr-defined]
    kinds = [type(stage).__name__ for stage in stages_of(function.function)]  # type: ignore[attr-defined]
    assert kinds == ["fallback", "retry", "timeout", "circuit_breaker"]
    other = made([OSError, OSError, "done"], circuit_breaker(fail_max=1), retry(3, base_interval=0.0))
    assert other() == "done", "here the breaker sees one call that succeeds"


def test_functions_keep_their_types_and_their_names() -> None:
    @retry(2)
    @timeout(1.0)
    def typed(item: str, count: int = 1) -> list[str]:
        """Doc."""
        return [item] * count

    @retry(2)
    async def asynchronous(item: str) -> int:
        return len(item)

    assert_type(typed("a", count=2), list[str])
    assert (typed.__name__, typed.__doc__, str(inspect.signature(typed))) == (
        "typed",
        "Doc.",
        "(item: 'str', count: 'int' = 1) -> 'list[str]'",
    )
    assert inspect.iscoroutinefunction(asynchronous)
    assert asyncio.run(asynchronous("abc")) == 3


def test_methods_and_wrappers_of_others() -> None:
    class Shop:
        def __init__(self) -> None:
            self.tries = 0

        @retry(3, base_interval=0.0)
        def sell(self) -> int:
            self.tries += 1
            if self.tries < 2:
                raise OSError
            return self.tries

    assert Shop().sell() == 2

    def others(function: Callable[[], str]) -> Callable[[], str]:
        @wraps(function)
        def wrapper() -> str:
            return f"<{function()}>"

        return wrapper

    @retry(2)
    @others
    @retry(2)
    def tagged() -> str:
        return "b"

    assert tagged() == "<b>"
    assert len(stages_of(tagged)) == 1


def test_what_cannot_be_decorated_says_why() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous() -> Any:
        yield 1

    for thing, words in ((generator, "is a generator"), (asynchronous, "is a generator"), (StageClock, "is a class")):
        with pytest.raises(TypeError, match=words):
            retry()(thing)
    with pytest.raises(TypeError, match="under @property, not above"):
        retry()(property(print))
    with pytest.raises(TypeError, match="decorate the async function itself"):
        retry()(lambda: asyncio.sleep(0))()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: retry(0), "at least once"),
        (lambda: retry(base_interval=-1), "0 or more"),
        (lambda: timeout(0), "above 0"),
        (lambda: hedge(-1), "0 or more"),
        (lambda: circuit_breaker(fail_max=0), "1 or more"),
        (lambda: rate_limit("often"), "not valid"),
        (lambda: rate_limit("1/second", wait=-1), "0 or more"),
        (lambda: bulkhead(0), "limit is 1 or more"),
        (lambda: retry(mesh=object(), attempts=2), "needs a name"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()
    with pytest.raises(TypeError):
        fallback()


def test_a_mode_for_tests(made: Make) -> None:
    function = made([OSError], retry(5, base_interval=60.0, max_interval=60.0), circuit_breaker(fail_max=1))
    with for_tests():
        for _ in range(3):
            with pytest.raises(OSError):  # noqa: PT011  any
                function()
        assert len(function.calls) == 3  # type: ignore[attr-defined]
        with for_tests(attempts=3):
            with pytest.raises(OSError):  # noqa: PT011  any
                function()
            assert len(function.calls) == 6  # type: ignore[attr-defined]
    with for_tests(attempts=None, protects=True), pytest.raises(CircuitOpenError):
        function()
    with pytest.raises(ValueError, match="at least once"), for_tests(attempts=0):
        pass
