"""Attempts of one asyncio call that overlap, each a task of its own: only calls that hedge come here."""

from __future__ import annotations

import asyncio
import time

from meshlib.drivers.wire import AsyncOverlappingWire
from meshlib.engine.commands import Cancel, Launch, Listen, Overlap, Start
from meshlib.model.outcome import Outcome


class AsyncRace:
    """The attempts under way. What one raises that is no outcome (the caller's own) is raised by `listen`."""

    def __init__(self, wire: AsyncOverlappingWire) -> None:
        self._wire = wire
        self._running: dict[asyncio.Task[Outcome], Start] = {}
        self._dropping: set[asyncio.Task[None]] = set()  # or the loop would let go of them

    async def obey(self, command: Overlap) -> tuple[Start, Outcome] | float:
        """Do what the flow asks for; what it is to hear."""
        match command:
            case Launch(start=start):
                return self.launch(start)
            case Listen(until=until):
                return await self.listen(until)
            case Cancel(start=start):
                return await self.cancel(start)
        raise TypeError(command)

    def launch(self, start: Start) -> float:
        """Begin an attempt."""
        self._running[asyncio.create_task(self._attempt(start))] = start
        return time.monotonic()

    async def listen(self, until: float | None) -> tuple[Start, Outcome] | float:
        """What the flow hears: the next end of an attempt, or that it is `until`."""
        left = None if until is None else max(0.0, until - time.monotonic())
        if not self._running:
            await asyncio.sleep(left or 0.0)
            return time.monotonic()
        done, _ = await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return time.monotonic()
        task = next(task for task in self._running if task in done)  # of several the one begun first
        return self._running.pop(task), task.result()

    async def cancel(self, start: Start) -> float:
        """Give an attempt up; its response, should it have one, is dropped."""
        for task in [task for task, running in self._running.items() if running is start]:
            del self._running[task]
            self._give_up(task)
            await asyncio.wait((task,))
        return time.monotonic()

    def close(self) -> None:
        """Give up whatever is still under way."""
        for task in self._running:
            self._give_up(task)
        self._running.clear()

    async def _attempt(self, start: Start) -> Outcome:
        outcome = await self._wire.apart(start)
        outcome.at = time.monotonic()
        return outcome

    def _give_up(self, task: asyncio.Task[Outcome]) -> None:
        task.cancel()
        task.add_done_callback(self._unwanted)

    def _unwanted(self, task: asyncio.Task[Outcome]) -> None:
        """Nobody is left to hear what became of an attempt."""
        if task.cancelled() or task.exception() is not None or task.result().failure is not None:
            return
        dropping = task.get_loop().create_task(self._wire.discard(task.result(), False))
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)
