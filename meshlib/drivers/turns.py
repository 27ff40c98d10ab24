"""Waiting for one's turn in a bulkhead's queue, on a thread or on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from meshlib.policy.bulkhead import Place


class Turn:
    """The question when it is one's turn, for at most `seconds`. The answer is in the place."""

    __slots__ = ("place", "seconds")

    def __init__(self, place: Place, seconds: float) -> None:
        self.place = place
        self.seconds = seconds

    def ask(self) -> None:
        """Block."""
        woken = threading.Event()
        self.place.wake = woken.set
        if self.place.admitted is None:  # after `wake` is set: else who settles it meanwhile would wake nobody
            woken.wait(self.seconds)

    async def aask(self) -> None:
        """On the running event loop; woken from any thread."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: whoever waited there has gone
                loop.call_soon_threadsafe(woken.set)

        self.place.wake = wake
        if self.place.admitted is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), self.seconds)
