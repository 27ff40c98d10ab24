"""A daemon thread for each stream, in the shape grpcio wants its thread pool.

A pool of ``concurrent.futures`` would have to be sized for the most streams there may ever be, and joins its threads
when the interpreter exits, so that a server nobody stopped would keep the process from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StreamThreads(Executor):
    """Runs each submission on a thread of its own."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Start ``fn`` at once."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - a future carries whatever happened
                future.set_exception(error)

        threading.Thread(target=run, name="meshlib-ads-stream", daemon=True).start()
        return future
