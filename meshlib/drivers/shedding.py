"""The load shedding of a server: its filters, with what they need of the world, and who hears of what they refuse."""

from __future__ import annotations

import time
from collections.abc import Sequence

from meshlib.drivers.turns import Turn
from meshlib.engine.events import LoadShed
from meshlib.engine.exchange import READ
from meshlib.engine.filters import LocalReply
from meshlib.engine.runtime import Runtime
from meshlib.engine.shedding import Shedder, server_shedder
from meshlib.model.shedding import Shedding, shedding

HEALTH_PATHS = ("/health", "/healthz", "/livez", "/ready", "/readyz")
"""What is never shed unless told otherwise: a server that is busy must not look dead."""
_EVERY = 1.0  # seconds between two events of one shedder


class Shed:
    """What `shed=` asks for, as policies or as text (`meshlib.model.shedding.shedding`); ValueError for other text."""

    __slots__ = ("_told", "filters", "reads")

    def __init__(self, given: Sequence[Shedding | str]) -> None:
        policies = [shedding(each) if isinstance(each, str) else each for each in given]
        made = (server_shedder(policy, wait=Turn, wall=time.time) for policy in policies)
        self.filters: tuple[Shedder, ...] = tuple(each for each in made if each is not None)
        names = [name for each in self.filters for name in each.reads]
        self.reads = {**READ, **{name.encode("latin-1", "replace"): name for name in names}}
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, runtime: Runtime, reply: LocalReply, path: str) -> None:
        """A request was refused. Observers hear of it once a second and shedder, of how many it was since."""
        if not runtime.observers:
            return
        now = time.monotonic()
        since, count = self._told.get(reply.name, (-_EVERY, 0))
        count += 1
        if now - since < _EVERY:
            self._told[reply.name] = since, count
        else:
            self._told[reply.name] = now, 0
            runtime.emit(lambda: LoadShed(now, reply.name, path, count))
