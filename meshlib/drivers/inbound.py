"""Requests that are served: the pauses their filters ask for, on a thread or on an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from meshlib.drivers.turns import Turn
from meshlib.engine.commands import Question
from meshlib.engine.exchange import Admission
from meshlib.engine.pauses import Consult, Delay, Pause


def settle(admission: Admission) -> None:
    """Block until it is known whether the request is served."""
    while (pause := admission.pause) is not None:
        try:
            answer = _blocking(pause, admission)
        except BaseException:
            admission.give_up(time.monotonic())
            raise
        admission.go_on(answer, time.monotonic())


async def asettle(admission: Admission) -> None:
    """The same on the running event loop."""
    while (pause := admission.pause) is not None:
        try:
            answer = await _waiting(pause, admission)
        except BaseException:  # the caller has gone away, most likely
            admission.give_up(time.monotonic())
            raise
        admission.go_on(answer, time.monotonic())


def _blocking(pause: Pause, admission: Admission) -> Any:
    if isinstance(pause, Delay):
        time.sleep(admission.left(pause.seconds, time.monotonic()))
    return _question(pause, admission).ask() if isinstance(pause, Consult) else None


async def _waiting(pause: Pause, admission: Admission) -> Any:
    if isinstance(pause, Delay):
        await asyncio.sleep(admission.left(pause.seconds, time.monotonic()))
    return await _question(pause, admission).aask() if isinstance(pause, Consult) else None


def _question(pause: Consult, admission: Admission) -> Question:
    """Whoever waits for its turn in a queue waits no longer than its caller does."""
    question = pause.question
    if isinstance(question, Turn):
        question.seconds = admission.left(question.seconds, time.monotonic())
    return question
