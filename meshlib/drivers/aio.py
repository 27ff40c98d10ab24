"""The asyncio driver. Twin of `sync.drive` in shape only: what is decided is decided in the flow they share."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from meshlib.drivers.racing_aio import AsyncRace
from meshlib.drivers.wire import AsyncOverlappingWire, AsyncWaiter, AsyncWire
from meshlib.engine.commands import Commit, Discard, Fetch, Flow, Mirror, Overlap, Query, Start, Terminal, Wait, abandon


async def drive(flow: Flow, wire: AsyncWire, waiter: AsyncWaiter) -> Terminal:
    """Run a flow to its terminal command. After a `Commit` the flow is still alive and wants a `BodyEnd`.

    Cancellation at any point closes the flow, which gives back its load.
    """
    race: AsyncRace | None = None
    try:
        command = next(flow)
        while True:
            match command:
                case Start():
                    outcome = await wire.attempt(command)
                    outcome.at = time.monotonic()
                    command = flow.send(outcome)
                case Commit():  # the second most frequent, so the second to be tried
                    return command
                case Wait(seconds=seconds):
                    await asyncio.sleep(seconds)
                    command = flow.send(time.monotonic())
                case Discard(outcome=dropped, bodiless=bodiless):
                    await wire.discard(dropped, bodiless)
                    command = flow.send(time.monotonic())
                case Mirror() as copy:
                    wire.mirror(copy)
                    command = flow.send(time.monotonic())
                case Query(question=question):
                    answer = await question.aask()
                    command = flow.send((answer, time.monotonic()))
                case Fetch(authority=authority, deadline=deadline):
                    await waiter.await_for(authority, deadline)
                    command = flow.send(time.monotonic())
                case Overlap():
                    race = race or AsyncRace(cast("AsyncOverlappingWire", wire))
                    command = flow.send(await race.obey(command))
                case _:
                    return command
    except BaseException:
        _give_up(flow, race)
        raise


def _give_up(flow: Flow, race: AsyncRace | None) -> None:
    if race is not None:
        race.close()
    abandon(flow, time.monotonic())
