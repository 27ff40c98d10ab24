"""What a demo is as a program: options, a screen, processes that end with it, a summary, an exit code."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

from examples.demo.plain import PlainScreen
from examples.demo.processes import Fleet
from examples.demo.stage import Screen, Stage
from examples.demo.summary import judge, print_summary

MakeStage = Callable[[Path, Screen, float], Stage]
Perform = Callable[[Stage, argparse.Namespace], Awaitable[None]]


def run(options: argparse.Namespace, fleet: Callable[[Path], Fleet], make: MakeStage, perform: Perform) -> int:
    """0 when every promise was kept, 1 otherwise, 130 when interrupted. Leaves no process behind."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # as Ctrl-C: through every `finally`, so that no process stays behind
    try:
        with tempfile.TemporaryDirectory(prefix="meshlib-demo-") as name, fleet(Path(name)) as started:
            folder, names = Path(name), dict[str, str]()
            stage = make(folder, PlainScreen(names), options.pace)
            stage.fleet, stage.names = started, names
            return asyncio.run(_play(options, folder, stage, perform))
    except KeyboardInterrupt:
        print("interrupted; every process has been stopped", file=sys.stderr)
        return 130


def parser(name: str, about: str | None, seconds: int) -> argparse.ArgumentParser:
    """The options every demo has; `seconds` is how long it takes at its own pace."""
    made = argparse.ArgumentParser(f"python -m {name}", description=about)
    made.add_argument("--plain", action="store_true", help="plain lines, as without a terminal")
    pace = float(os.environ.get("MESHLIB_DEMO_PACE", "1"))
    what = f"length of the acts, 1 is about {seconds} s ($MESHLIB_DEMO_PACE)"
    made.add_argument("--pace", type=float, default=pace, help=what)
    made.add_argument("--without-retries", action="store_true", help="see what breaks when nothing is retried")
    return made


async def _play(options: argparse.Namespace, folder: Path, stage: Stage, perform: Perform) -> int:
    plain = options.plain or not sys.stdout.isatty()
    logging.basicConfig(filename=folder / "client.log", level=logging.INFO)
    with _live(stage) if not plain else nullcontext():
        await perform(stage, options)
    judge(stage)
    print_summary(stage)
    return 1 if stage.results.broken else 0


def _live(stage: Stage) -> AbstractContextManager[object]:
    from examples.demo.dashboard import Dashboard

    dashboard = Dashboard(stage)
    stage.screen = dashboard
    return dashboard


def _leave(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
