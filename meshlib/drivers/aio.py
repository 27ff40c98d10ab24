"""The asyncio driver. Twin of `sync.drive` in shape only: what is decided is decided in the flow they share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

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
                case Query() | Fetch() | Mirror():
                    command = flow.send(await _seldom(command, wire, waiter))
                case Overlap():
                    race = race or AsyncRace(cast("AsyncOverlappingWire", wire))
                    command = flow.send(await race.obey(command))
                case _:
                    return command
    except BaseException:
        _give_up(flow, race)
        raise


async def _seldom(command: Query | Fetch | Mirror, wire: AsyncWire, waiter: AsyncWaiter) -> Any:
    """What few calls ask for; what they are to hear."""
    match command:
        case Query():
            answer = await command.question.aask()
            return answer, time.monotonic()
        case Fetch():
            await waiter.await_for(command.authority, command.deadline)
        case Mirror():
            wire.mirror(command)
    return time.monotonic()


def _give_up(flow: Flow, race: AsyncRace | None) -> None:
    if race is not None:
        race.close()
    abandon(flow, time.monotonic())
