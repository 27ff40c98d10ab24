"""The draining state of a server process: what every kind of server shares on its way out.

What a server does with it is its own: `meshlib.http.drain` for ASGI, `meshlib.grpc.termination` for gRPC.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["Draining"]

log = logging.getLogger("meshlib.drain")


class Draining:
    """`draining` says whether it has begun, `seconds` how long the server goes on accepting (0: not at all)."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.draining = False
        self._hooks: list[Callable[[], None]] = []
        self._over = 0.0  # monotonic; when the server may stop listening, once draining

    def on_drain(self, hook: Callable[[], None]) -> None:
        """Call `hook` when draining begins (deregistration); on the event loop, it must be quick."""
        self._hooks.append(hook)

    def begin(self) -> None:
        """Fail readiness and ask callers to leave. Idempotent."""
        if self.draining:
            return
        self.draining = True
        self._over = time.monotonic() + self.seconds
        log.info("draining for %g s: readiness fails, connections are asked to close", self.seconds)
        for hook in self._hooks:
            try:
                hook()
            except Exception:
                log.exception("drain hook %r failed; draining goes on", hook)
