"""The connectivity of a mesh channel.

Its connections are made by its calls, endpoint by endpoint, so there is no one connection whose state it could tell. It
is READY once the plan says what happens to its target, which is what a caller can wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

_States = grpc.ChannelConnectivity


def state_of(mesh: Mesh, authority: str, asked: bool) -> Any:
    """READY once the plan speaks for the authority, or nothing ever will; before that IDLE, CONNECTING once asked."""
    plan = mesh.runtime.plan
    if plan.find("http", authority) is not None or not plan.may_come("http", authority):
        return _States.READY
    return _States.CONNECTING if asked else _States.IDLE


class Subscription:
    """One callback's view: told of the state now, and when it changes, on a thread that ends once it cannot."""

    def __init__(self, mesh: Mesh, authority: str, callback: Callable[[Any], None], try_to_connect: bool) -> None:
        self._mesh = mesh
        self._authority = authority
        self._callback = callback
        self._asked = try_to_connect
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="meshlib-connectivity", daemon=True).start()

    def end(self) -> None:
        """Tell no more."""
        self._ended.set()

    def _run(self) -> None:
        told = None
        if self._asked:
            self._mesh.ensure_started()
        while not self._ended.is_set():
            state = state_of(self._mesh, self._authority, self._asked)
            if state is not told:
                self._callback(state)
                told = state
            if state is _States.READY:
                return
            self._mesh.wait_for(self._authority, time.monotonic() + 1.0)
