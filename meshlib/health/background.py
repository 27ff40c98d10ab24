"""An event loop on a thread of its own: checks never run on the application's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """Begun when it first has something to do, so that a server that forks its workers has it in each of them.

    What runs in it must not block. `close` gives up whatever is still running; what is called after it begins anew,
    or, if that was for good, is not called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = False
        self._tasks: set[asyncio.Task[None]] = set()  # or the loop would let go of them

    def call(self, work: Callable[[], object]) -> None:
        """Have the loop call this soon, from any thread."""
        with self._lock:
            if self._ended:
                return
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            self._loop.call_soon_threadsafe(work)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the loop; only from inside it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self, *, for_good: bool = False) -> None:
        """End it, from any thread but its own. Idempotent."""
        with self._lock:
            self._ended = self._ended or for_good
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            if loop is None or thread is None:
                return
            loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            loop.close()
