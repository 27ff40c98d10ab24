"""`python -m examples.demo`: set the stage, play, sum up. Exit code 0 when every promise was kept, 1 otherwise."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

from examples.demo.acts import play
from examples.demo.config_folder import ConfigFolder
from examples.demo.load import Load
from examples.demo.plain import PlainScreen
from examples.demo.processes import Fleet
from examples.demo.stage import Stage
from examples.demo.summary import judge, print_summary
from meshlib import Mesh
from meshlib.sources.xds import Bootstrap, Node, XdsServer

CAST = (
    ("stable", "stable-1"),
    ("stable", "stable-2"),
    ("canary", "canary-1"),
    ("canary", "canary-2"),
    ("flaky", "flaky-1"),
)


def main() -> int:
    """Run the demo from the command line."""
    options = _options()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # as Ctrl-C: through every `finally`, so that no process stays behind
    try:
        with tempfile.TemporaryDirectory(prefix="meshlib-demo-") as folder, Fleet(Path(folder)) as fleet:
            return asyncio.run(_run(options, Path(folder), fleet))
    except KeyboardInterrupt:
        print("interrupted; every process has been stopped", file=sys.stderr)
        return 130


async def _run(options: argparse.Namespace, folder: Path, fleet: Fleet) -> int:
    names: dict[str, str] = {}
    plain = options.plain or not sys.stdout.isatty()
    logging.basicConfig(filename=folder / "client.log", level=logging.INFO)
    stage = Stage(ConfigFolder(folder / "conf"), fleet, PlainScreen(names), options.pace)
    stage.names = names
    with _live(stage) if not plain else nullcontext():
        await _perform(stage, retries=0 if options.without_retries else 4)
    judge(stage)
    print_summary(stage)
    return 1 if stage.results.broken else 0


async def _perform(stage: Stage, retries: int) -> None:
    stage.screen.act("Setting the stage: a control plane, five instances of three services")
    port = await stage.open_control_plane()
    await stage.enter(*CAST)
    bootstrap = Bootstrap((XdsServer(f"127.0.0.1:{port}"),), Node(id="client", cluster="demo"))
    with Mesh.from_xds(bootstrap, declared=["payments", "hints"], unknown_hosts="reject") as mesh:
        stage.mesh = mesh
        mesh.on_event(stage.observe)
        revision = stage.conf.edit(
            retries=retries,
            stable_endpoints=stage.endpoints("stable-1", "stable-2"),
            canary_endpoints=stage.endpoints("canary-1", "canary-2"),
            hints_endpoints=stage.endpoints("flaky-1"),
        )
        await _served(stage, revision)
        async with Load(mesh, stage.ledger):
            await play(stage)


async def _served(stage: Stage, revision: int) -> None:
    """Wait until the client knows the endpoints just written; only then is there something to promise."""
    hosts = ("stable", "canary", "hints")

    def known() -> bool | None:
        clusters = stage.mesh.plan.clusters
        return all(name in clusters and clusters[name].balancer.hosts for name in hosts) or None

    if await stage.wait_for(known) is None:
        raise RuntimeError(f"the client heard of no endpoints (edit {revision}): {stage.control_plane.output()}")


def _live(stage: Stage) -> AbstractContextManager[object]:
    from examples.demo.dashboard import Dashboard

    dashboard = Dashboard(stage)
    stage.screen = dashboard
    return dashboard


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m examples.demo", description=__doc__)
    parser.add_argument("--plain", action="store_true", help="plain lines, as without a terminal")
    pace = float(os.environ.get("MESHLIB_DEMO_PACE", "1"))
    parser.add_argument(
        "--pace", type=float, default=pace, help="length of the acts, 1 is about 40 s ($MESHLIB_DEMO_PACE)"
    )
    parser.add_argument("--without-retries", action="store_true", help="see what breaks when nothing is retried")
    return parser.parse_args()


def _leave(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
