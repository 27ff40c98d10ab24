"""A process that hears of load out of band, and forks: the child hears of it too. Argument: the server's address."""

from __future__ import annotations

import os
import sys
import time

from meshlib import Mesh
from meshlib.model.lb import ClientSideWeightedRoundRobin


def hears(mesh: Mesh, address: str) -> bool:
    deadline = time.monotonic() + 15
    while mesh.runtime.state.cluster("payments").endpoint(address).reported is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return mesh.runtime.state.cluster("payments").endpoint(address).reported is not None


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(address: str) -> None:
    policy = ClientSideWeightedRoundRobin(oob_reporting_period=0.02)
    mesh = Mesh.static({"payments": [address]}, lb_policy=policy).start()
    say(f"parent hears {hears(mesh, address)}")
    child = os.fork()
    if child == 0:
        mesh.start()
        say(f"child hears {hears(mesh, address)}")
        os._exit(0)
    os.waitpid(child, 0)
    mesh.close()


if __name__ == "__main__":
    main(sys.argv[1])
