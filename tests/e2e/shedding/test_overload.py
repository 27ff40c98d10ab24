"""The overload test: three times what a real server can do is asked of it, with shedding and without."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.shedding.open_loop import Answer, Callers
from parts.process import Process

ROOT = Path(__file__).parents[3]
WORKERS, NOMINAL = 10, 200.0  # what the application can do at a time, and a second
PATIENCE = 0.5
WARM_UP, SECONDS = 3.0, 4.0
UVICORN = ["uvicorn", "--port", "0", "--no-access-log", "e2e.shedding.overload_app:asgi_app"]
GUNICORN = [
    "gunicorn",
    *("--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "200", "--backlog", "1024"),
    "e2e.shedding.overload_app:wsgi_app",
]

Start = Callable[..., int]


@pytest.fixture
def start(servers: Any) -> Start:
    """A server with the application, shedding as told; its port."""

    def started(command: list[str], *shed: str) -> int:
        environment = {"OVERLOAD": json.dumps(shed), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        quiet = [sys.executable, "-W", "ignore::DeprecationWarning", "-m"]
        log = servers.folder("overload") / "server.log"
        process = servers.keep(Process([*quiet, *command], log, environment))
        return int(process.wait_line(r"(?:running on|Listening at:) http://127.0.0.1:(\d+)")[1])

    return started


@dataclass
class Figures:
    """Of requests that were asked after the warm-up."""

    answers: list[Answer]
    seconds: float

    @property
    def goodput(self) -> float:
        return sum(answer.status == 200 for answer in self.answers) / self.seconds

    @property
    def p99(self) -> float:
        """Of what was not refused. Whoever gave up has waited for as long as its patience at least."""
        times = sorted(answer.took for answer in self.answers if answer.status != 503)
        return times[int(0.99 * (len(times) - 1))]

    @property
    def gave_up(self) -> float:
        return sum(answer.status is None for answer in self.answers) / len(self.answers)


async def overloaded(port: int) -> Figures:
    callers = Callers(port, PATIENCE)
    answers = await callers.at_rate(3 * NOMINAL, WARM_UP + SECONDS)
    callers.close()
    return Figures([answer for answer in answers if answer.at >= WARM_UP], SECONDS)


async def capacity(port: int) -> float:
    """What the server can do on this machine today: as many callers as it has workers."""
    callers = Callers(port, 10.0)
    answers = await callers.at_once(WORKERS, 2.0)
    callers.close()
    return len(answers) / 2.0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("command", "shed"),
    [
        (UVICORN, "adaptive"),
        (UVICORN, "bulkhead 20"),
        pytest.param(GUNICORN, "bulkhead 20", marks=[pytest.mark.needs("gunicorn"), pytest.mark.slow]),
        pytest.param(GUNICORN, "adaptive", marks=[pytest.mark.needs("gunicorn"), pytest.mark.slow]),
    ],
    ids=["uvicorn-adaptive", "uvicorn-bulkhead", "gunicorn-bulkhead", "gunicorn-adaptive"],
)
async def test_three_times_the_capacity(start: Start, command: list[str], shed: str) -> None:
    without = start(command)
    able = await capacity(without)
    assert able > 0.7 * NOMINAL, "the machine is too busy to tell"
    bare = await overloaded(without)
    shedding = await overloaded(start(command, shed))
    assert shedding.goodput >= 0.9 * able, (shedding.goodput, able)
    assert shedding.p99 <= 0.8 * PATIENCE, shedding.p99
    # Without it nearly everything is done in vain: the callers have given up by then.
    assert bare.goodput <= 0.3 * able, (bare.goodput, able)
    assert bare.p99 >= PATIENCE, bare.p99
    assert bare.gave_up > 0.8
