"""Copies of requests under way: bounded, on nobody's time, given up when the mesh is closed.

A copy on an event loop is a task of its own there. A copy of a blocking call runs on one of a few threads, which are
started for the first and end when there has been none for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVar, cast

log = logging.getLogger("meshlib")
MOST = 1024
"""Copies under way in a process, those that wait for a thread included."""
MOST_THREADS = 16
_IDLE = 10.0  # seconds without work, after which a thread ends


class BlockingCopy(Protocol):
    """A copy that needs a thread."""

    def run(self) -> None:
        """Send it, and see its response to the end."""

    def cancel(self) -> None:
        """Give it up, from any thread, whether it runs or not."""


class Closable(Protocol):
    """What blocking copies of one kind send by."""

    def close(self) -> None:
        """Close it; what is under way over it fails."""


C = TypeVar("C", bound=Closable)


class Mirrors:
    """The copies of one mesh in one process. Safe from any thread; none of it waits."""

    def __init__(self, most: int = MOST, threads: int = MOST_THREADS) -> None:
        self._most = most
        self._most_threads = threads
        self._live: dict[object, Callable[[], object]] = {}
        self._queue: queue.SimpleQueue[tuple[Context, BlockingCopy] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._shared: dict[object, Closable] = {}
        self._closed = False

    @property
    def under_way(self) -> int:
        """How many copies are."""
        return len(self._live)

    def shared(self, key: object, make: Callable[[], C]) -> C:
        """What copies send by, made once and closed with them. Two threads may make it at once: one is never used."""
        found = self._shared.get(key)
        if found is None:
            found = self._shared.setdefault(key, make())
        return cast("C", found)

    def on_thread(self, copy: BlockingCopy) -> bool:
        """Have a copy run on a thread, in the caller's context; False when there are too many."""
        if self._closed or len(self._live) >= self._most:
            return False
        self._live[copy] = copy.cancel
        self._queue.put((copy_context(), copy))
        self._staff()
        return True

    def on_loop(self, run: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Have a copy run on the running event loop; False when there are too many."""
        if self._closed or len(self._live) >= self._most:
            return False
        loop = asyncio.get_running_loop()
        task = loop.create_task(_quietly(run()))
        self._live[task] = lambda: _cancel(loop, task)
        task.add_done_callback(self._forget)
        return True

    def close(self) -> None:
        """Give up what is under way and take no more. Idempotent."""
        self._closed = True
        for cancel in list(self._live.values()):
            try:
                cancel()
            except Exception:
                log.exception("a mirrored request could not be cancelled")
        for kept in list(self._shared.values()):
            kept.close()
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)

    def _forget(self, copy: object) -> None:
        self._live.pop(copy, None)

    def _staff(self) -> None:
        """One more thread, if what waits is more than those there are will take up at once."""
        with self._lock:
            if self._threads >= min(self._most_threads, len(self._live)):
                return
            self._threads += 1
            threading.Thread(target=self._work, name="meshlib-mirror", daemon=True).start()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            context, copy = item
            try:
                if not self._closed:
                    context.run(copy.run)
            except Exception:
                log.exception("a mirrored request could not be sent")
            finally:
                self._forget(copy)
                del item, context, copy

    def _next(self) -> tuple[Context, BlockingCopy] | None:
        """What to do next; None: this thread has come to its end."""
        while True:
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=_IDLE)
                if item is None:
                    break
                return item
            with self._lock:
                if self._queue.empty():
                    self._threads -= 1
                    return None
        with self._lock:
            self._threads -= 1
        return None


async def _quietly(run: Coroutine[Any, Any, None]) -> None:
    try:
        await run
    except Exception:
        log.exception("a mirrored request could not be sent")


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed, and the task went with it
        loop.call_soon_threadsafe(task.cancel)
