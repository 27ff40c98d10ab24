"""What the blocking and the asyncio transport share: the classes they answer with, and handing over a response."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from meshlib.context import current
from meshlib.engine.commands import Commit
from meshlib.http.exchange import NO_TIMEOUT, Exchange
from meshlib.http.library import Library
from meshlib.http.responses import response_type

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

_PHASES = ("connect", "read", "write", "pool")
_LEAST = 0.001  # seconds; 0 would mean "at once" to some and "never" to others


class TransportCore:
    """A transport before anything waits. `bodies` are the classes of a body that is streamed, of one that has arrived
    whole, of one whose reading is traced, and of one that a fault slows; here they become streams of the library.
    """

    def __init__(
        self,
        mesh: Mesh,
        library: Library,
        fallback: Any,
        bodies: tuple[type[Any], type[Any], type[Any], type[Any]],
        base: str,
    ) -> None:
        self.mesh = mesh
        self.library = library
        self._given = fallback
        self.default_options: dict[str, Any] = {}
        """What the library's own transport is made with where none was given."""
        self.default_timeout: dict[str, float | None] | None = None
        """For hosts the mesh does not know, where the request has none of its own."""
        self._generation = mesh.generation
        stream: Any = getattr(library.module, base)
        made = (type(f"Mesh{body.__name__}", (body, stream), {}) for body in bodies)
        self._stream, self._whole, self.traced, self.slowed = made
        self.response: Any = response_type(library, self._whole, asynchronous=base.startswith("Async"))

    def _bound(self, request: Any) -> Any:
        """A request to a host the mesh does not know: no route bounds it, so the library's own default does, and the
        deadline of the request that is being served.
        """
        given = request.extensions.get("timeout") or NO_TIMEOUT
        if self.default_timeout is not None and not any(given.values()):
            given = self.default_timeout
        deadline = current.get().deadline
        if deadline is not None:
            left = max(deadline - time.monotonic(), _LEAST)
            given = {phase: left if (limit := given.get(phase)) is None else min(limit, left) for phase in _PHASES}
        if given:
            request.extensions = {**request.extensions, "timeout": given}
        return request

    def _commit(self, exchange: Exchange, commit: Commit) -> Any:
        wire = commit.outcome.response
        body = wire.whole()
        if commit.info.response_limit is not None:
            return self._slowly(exchange, commit, body, commit.info.response_limit)
        if body is None:
            wire.on_done = exchange.finish
            return exchange.committed(commit, self._stream(exchange, wire, commit.info))
        exchange.finish(None)
        return exchange.committed(commit, self._whole(body))

    def _slowly(self, exchange: Exchange, commit: Commit, body: bytes | None, rate: int) -> Any:
        """The call lasts as long as its body takes to come out."""
        wire = commit.outcome.response
        if body is None:
            wire.on_done = exchange.finish
            stream = self.slowed(self._stream(exchange, wire, commit.info), rate)
        else:
            stream = self.slowed(self._whole(body), rate, lambda: exchange.finish(None))
        return exchange.committed(commit, stream)
