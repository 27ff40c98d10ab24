"""A number of things to be had in turn, first come first served; the number may change while they are out."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """For one event loop. With a lower `capacity` those that come back are not given out again."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Take one, waiting for it if there is none."""
        if self._taken < self.capacity and not self._waiting:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it had been given, and nobody took it
            raise

    def release(self) -> None:
        """Give one back."""
        self._taken -= 1
        self._hand_out()

    def resize(self, capacity: int) -> None:
        """Have another number from now on."""
        self.capacity = capacity
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._taken < self.capacity:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
