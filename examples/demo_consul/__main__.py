"""`python -m examples.demo_consul`: the demo on a real Consul. Exit code 0 when every promise was kept, 1 otherwise, 2
when there is no Consul to run it on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.demo import program
from examples.demo.__main__ import CAST
from examples.demo.acts import play
from examples.demo.load import Load
from examples.demo.stage import Screen, Stage
from examples.demo_consul.acts import STORY, registered
from examples.demo_consul.entries import ConsulEntries
from examples.demo_consul.fleet import HOST, ConsulFleet, consul_binary
from meshlib import CircuitBreaker, Mesh
from meshlib.model.cluster import CircuitBreakers, Cluster, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.route import RetryPolicy

RETRIES = RetryPolicy(
    ("connect-failure", "refused-stream", "reset", "5xx"),
    num_retries=4,
    previous_hosts=True,
    host_selection_retry_max_attempts=5,
)
POLICIES = Cluster(
    "",
    connect_timeout=1.0,
    healthy_panic_threshold=0.0,
    outlier_detection=OutlierDetection(consecutive_5xx=3, base_ejection_time=1.5, max_ejection_percent=50),
    circuit_breakers=CircuitBreakers(default=Thresholds(retry_budget=RetryBudget(50.0, 16))),
)
"""What Consul's chain does not say, from code: it holds for every cluster."""


def main() -> int:
    """Run the demo from the command line."""
    options = program.parser("examples.demo_consul", __doc__, seconds=35).parse_args()
    if consul_binary() is None:
        print("There is no Consul: `make servers` builds one (it needs go), or put consul on PATH.", file=sys.stderr)
        return 2
    return program.run(options, ConsulFleet, _stage, _perform)


def _stage(folder: Path, screen: Screen, pace: float) -> Stage:
    return Stage(ConsulEntries(folder / "conf"), screen, pace)


async def _perform(stage: Stage, options: argparse.Namespace) -> None:
    stage.screen.act("Setting the stage: a Consul, five instances that register themselves")
    address = f"{HOST}:{await stage.open_control_plane()}"
    assert isinstance(stage.conf, ConsulEntries)  # noqa: S101  made above
    stage.conf.open(address)
    stage.conf.edit(stable_weight=100, canary_weight=0)
    await stage.enter(*CAST)
    everyone = {"stable": 2, "canary": 2, "hints": 1}
    await stage.wait_for(lambda: all(len(registered(stage, s)) == n for s, n in everyone.items()) or None)
    with Mesh.from_consul(
        address,
        declared=["payments", "hints"],
        retries=None if options.without_retries else RETRIES,
        cluster=POLICIES,
        breakers={"hints": CircuitBreaker(fail_max=5, reset_timeout=1.0)},
        unknown_hosts="reject",
    ) as mesh:
        stage.mesh = mesh
        mesh.on_event(stage.observe)
        await stage.served()
        async with Load(mesh, stage.ledger):
            await play(stage, STORY)


if __name__ == "__main__":
    sys.exit(main())
