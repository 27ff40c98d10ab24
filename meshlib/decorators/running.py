"""Drivers of a pipeline: one for blocking functions, one for async ones."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CoroutineType
from typing import Any

from meshlib.context import current
from meshlib.decorators.failure import failed
from meshlib.decorators.functions import is_async
from meshlib.decorators.modes import mode
from meshlib.decorators.steps import Ask, ExpiredError, Invoke, Park, Race, Recover, Running, Sleep, Step, Steps

_UNUSED = object()


def drive(flow: Steps) -> Any:
    """Carry a pipeline to its result, blocking."""
    answer, error = None, None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value
        answer, error = None, None
        try:
            answer = _perform(step)
        except BaseException as raised:  # noqa: BLE001  the stages are asked what becomes of it, and raise it on
            error = raised


async def adrive(flow: Steps) -> Any:
    """Carry a pipeline to its result on the running event loop."""
    answer, error = None, None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value
        answer, error = None, None
        try:
            answer = await _aperform(step)
        except BaseException as raised:  # noqa: BLE001  as above; a cancellation too, for stages hold things
            error = raised


def _perform(step: Step) -> Any:
    match step:
        case Invoke(call=call):
            return _invoke(call)
        case Sleep(seconds=seconds):
            return time.sleep(seconds) if mode().waits else None
        case Ask(question=question):
            return question.ask()
        case Park(ticket=ticket, seconds=seconds):
            event = threading.Event()
            ticket.on_call(event.set)
            event.wait(seconds)
            return ticket.called
        case Race():
            return _race(step)
        case Recover():
            with _because_of(step.error):
                return step.function(*step.call.args, **step.call.kwargs)
    raise TypeError(step)


async def _aperform(step: Step) -> Any:
    match step:
        case Invoke(call=call):
            return await _ainvoke(call)
        case Sleep(seconds=seconds):
            return await asyncio.sleep(seconds if mode().waits else 0.0)
        case Ask(question=question):
            return await question.aask()
        case Park(ticket=ticket, seconds=seconds):
            loop, event = asyncio.get_running_loop(), asyncio.Event()
            ticket.on_call(partial(loop.call_soon_threadsafe, event.set))
            try:
                async with asyncio.timeout(seconds):
                    await event.wait()
            except TimeoutError:
                return ticket.called
            return True
        case Race():
            return await _arace(step)
        case Recover():
            with _because_of(step.error):
                result = step.function(*step.call.args, **step.call.kwargs)
                return await result if is_async(step.function) else result
    raise TypeError(step)


# ---------------------------------------------------------------------------------------------------- the function


def _invoke(call: Running) -> Any:
    """Nothing can interrupt a blocking function. What it calls through the mesh inherits the deadline, and a failure
    behind the deadline counts as running out of time; a result is a result.
    """
    if call.deadline is not None and call.clock() >= call.deadline:
        raise ExpiredError
    with _inherited(call.deadline):
        try:
            result = call.function(*call.args, **call.kwargs)
        except Exception as error:
            if call.deadline is not None and call.clock() >= call.deadline:
                raise ExpiredError from error
            raise
    if isinstance(result, CoroutineType):
        result.close()
        raise TypeError(f"{call.name} returned a coroutine; decorate the async function itself")
    return result


async def _ainvoke(call: Running) -> Any:
    """At the deadline the function is cancelled."""
    if call.deadline is None:
        return await call.function(*call.args, **call.kwargs)
    left = call.deadline - call.clock()
    if left <= 0:
        raise ExpiredError
    with _inherited(call.deadline):
        scope = asyncio.timeout(left)
        try:
            async with scope:
                return await call.function(*call.args, **call.kwargs)
        except TimeoutError as error:
            if scope.expired():
                raise ExpiredError from error
            raise


@contextmanager
def _inherited(deadline: float | None) -> Iterator[None]:
    if deadline is None:
        yield
        return
    token = current.set(current.get().until(deadline))
    try:
        yield
    finally:
        current.reset(token)


@contextmanager
def _because_of(error: BaseException) -> Iterator[None]:
    token = failed.set(error)
    try:
        yield
    finally:
        failed.reset(token)


# ------------------------------------------------------------------------------------------------------------ races


def _race(race: Race) -> Any:
    """Each run on a thread of its own. Those that lose run to their end, and nobody hears of it."""
    ended: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run(flow: Steps) -> None:
        try:
            ended.put((drive(flow), None))
        except BaseException as error:  # noqa: BLE001  raised where the caller waits
            ended.put((None, error))

    def begin() -> None:
        work: Callable[..., None] = contextvars.copy_context().run
        threading.Thread(target=work, args=(run, race.begin()), name="meshlib-hedge", daemon=True).start()

    begun, failed = 0, 0
    while True:
        if begun == 0 or begun < race.most:
            begin()
            begun += 1
        try:
            result, error = ended.get(timeout=race.delay if begun < race.most else None)
        except queue.Empty:
            continue
        while error is not None:
            failed += 1
            if failed == begun:
                raise error
            result, error = ended.get()
        return result


async def _arace(race: Race) -> Any:
    running: set[asyncio.Task[Any]] = set()
    begun = 0
    try:
        while True:
            if begun < race.most:
                running.add(asyncio.create_task(adrive(race.begin())))
                begun += 1
            result, error = await _first(running, race.delay if begun < race.most else None)
            while error is not None:
                if not running:
                    raise error
                result, error = await _first(running, None)
            if result is not _UNUSED:
                return result
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def _first(running: set[asyncio.Task[Any]], seconds: float | None) -> tuple[Any, BaseException | None]:
    """The result of one that has ended well; else the error of one that has not; neither when the time is over."""
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    error: BaseException | None = None
    for task in done:
        running.discard(task)
        error = task.exception()
        if error is None:
            return task.result(), None
    return _UNUSED, error
