"""`python -m examples.demo`: set the stage, play, sum up. Exit code 0 when every promise was kept, 1 otherwise."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.demo import program
from examples.demo.acts import play
from examples.demo.acts_mtls import the_certificates
from examples.demo.certificates import Certificates
from examples.demo.config_folder import ConfigFolder
from examples.demo.load import Load
from examples.demo.load_grpc import GrpcLoad
from examples.demo.processes import CERTIFICATES, Fleet
from examples.demo.stage import Screen, Stage
from examples.demo.story import STORY
from meshlib import Mesh
from meshlib.sources.xds import Bootstrap, Node, XdsServer

CAST = (
    ("stable", "stable-1"),
    ("stable", "stable-2"),
    ("canary", "canary-1"),
    ("canary", "canary-2"),
    ("flaky", "flaky-1"),
)
GRPC_CAST = (("receipts", "receipts-1"), ("receipts", "receipts-2"))


def main() -> int:
    """Run the demo from the command line."""
    options = program.parser("examples.demo", __doc__, seconds=40).parse_args()
    return program.run(options, Fleet, _stage, _perform)


def _stage(folder: Path, screen: Screen, pace: float) -> Stage:
    return Stage(ConfigFolder(folder / "conf"), screen, pace, Certificates(folder / CERTIFICATES))


async def _perform(stage: Stage, options: argparse.Namespace) -> None:
    stage.screen.act("Setting the stage: a control plane, seven instances of four services")
    port = await stage.open_control_plane()
    await stage.enter(*CAST, *GRPC_CAST)
    bootstrap = Bootstrap((XdsServer(f"127.0.0.1:{port}"),), Node(id="client", cluster="demo"))
    hosts = ["payments", "hints", "receipts"]
    identity = the_certificates(stage).client
    with Mesh.from_xds(bootstrap, declared=hosts, unknown_hosts="reject", identity=identity) as mesh:
        stage.mesh = mesh
        mesh.on_event(stage.observe)
        stage.conf.edit(
            retries=0 if options.without_retries else 4,
            stable_endpoints=stage.endpoints("stable-1", "stable-2"),
            canary_endpoints=stage.endpoints("canary-1", "canary-2"),
            hints_endpoints=stage.endpoints("flaky-1"),
            receipts_endpoints=stage.endpoints("receipts-1", "receipts-2"),
        )
        await stage.served()
        async with Load(mesh, stage.ledger), GrpcLoad(mesh, stage.ledger):
            await play(stage, STORY)


if __name__ == "__main__":
    sys.exit(main())
