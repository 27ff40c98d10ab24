"""The blocking driver."""

from __future__ import annotations

import time
from typing import Any, cast

from meshlib.drivers.racing import Race
from meshlib.drivers.wire import OverlappingWire, SyncWaiter, SyncWire
from meshlib.engine.commands import Commit, Discard, Fetch, Flow, Mirror, Overlap, Query, Start, Terminal, Wait, abandon


def drive(flow: Flow, wire: SyncWire, waiter: SyncWaiter) -> Terminal:
    """Run a flow to its terminal command. After a `Commit` the flow is still alive and wants a `BodyEnd`.

    Whatever is raised meanwhile (KeyboardInterrupt, a caller's own exception) closes the flow first, which gives back
    its load.
    """
    race: Race | None = None
    try:
        command = next(flow)
        while True:
            match command:
                case Start():
                    outcome = wire.attempt(command)
                    outcome.at = time.monotonic()
                    command = flow.send(outcome)
                case Commit():  # the second most frequent, so the second to be tried
                    return command
                case Wait(seconds=seconds):
                    time.sleep(seconds)
                    command = flow.send(time.monotonic())
                case Discard(outcome=dropped, bodiless=bodiless):
                    wire.discard(dropped, bodiless)
                    command = flow.send(time.monotonic())
                case Query() | Fetch() | Mirror():
                    command = flow.send(_seldom(command, wire, waiter))
                case Overlap():
                    race = race or Race(cast("OverlappingWire", wire))
                    command = flow.send(race.obey(command))
                case _:
                    return command
    except BaseException:
        _give_up(flow, race)
        raise


def _seldom(command: Query | Fetch | Mirror, wire: SyncWire, waiter: SyncWaiter) -> Any:
    """What few calls ask for; what they are to hear."""
    match command:
        case Query():
            answer = command.question.ask()
            return answer, time.monotonic()
        case Fetch():
            waiter.wait_for(command.authority, command.deadline)
        case Mirror():
            wire.mirror(command)
    return time.monotonic()


def _give_up(flow: Flow, race: Race | None) -> None:
    if race is not None:
        race.close()
    abandon(flow, time.monotonic())
