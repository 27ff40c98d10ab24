"""Faults for as long as a test wants them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from meshlib.policy.fault import Fault

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["faults"]


@contextmanager
def faults(mesh: Mesh, service: str, **fault: Any) -> Iterator[Fault]:
    """Inject a fault into the calls of one mesh to a service, without touching its configuration: `fault` is what
    `meshlib.Fault` takes. Calls that wait in a delay when it ends wait on. What else is injected goes on; the switch
    (`mesh.faults.enabled`) is left alone.
    """
    wanted = Fault(**fault)
    with mesh.faults.inject(service, wanted):
        yield wanted
