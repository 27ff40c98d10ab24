"""Who runs where: a core for the client, one for the server, the others for sidecars and control planes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

CAN_PIN = hasattr(os, "sched_setaffinity")


@dataclass(frozen=True, slots=True)
class Cores:
    """`shared` says that there were too few cores to keep all of them apart."""

    client: int
    server: int
    first_sidecar: int
    second_sidecar: int
    shared: bool

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The client gets the last core: interrupts are mostly served by the first."""
        cores = sorted(os.sched_getaffinity(0)) if CAN_PIN else list(range(os.cpu_count() or 1))
        others = cores[:-1] or cores
        return cls(cores[-1], others[0], others[1 % len(others)], others[2 % len(others)], len(cores) < 4)


def pin(core: int) -> None:
    """Keep this process on one core, where the system can."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {core})
