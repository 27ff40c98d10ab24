"""What the blocking and the asyncio transport share: the classes they answer with, and handing over a response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.engine.commands import Commit
from meshlib.http.exchange import Exchange
from meshlib.http.library import Library
from meshlib.http.responses import response_type

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


class TransportCore:
    """A transport before anything waits. `bodies` are the classes of a body that is streamed, of one that has arrived
    whole, and of one whose reading is traced; here they become streams of the library.
    """

    def __init__(
        self, mesh: Mesh, library: Library, fallback: Any, bodies: tuple[type[Any], type[Any], type[Any]], base: str
    ) -> None:
        self.mesh = mesh
        self.library = library
        self._given = fallback
        self.default_options: dict[str, Any] = {}
        """What the library's own transport is made with where none was given."""
        self._generation = mesh.generation
        stream: Any = getattr(library.module, base)
        self._stream, self._whole, self.traced = (type(f"Mesh{body.__name__}", (body, stream), {}) for body in bodies)
        self.response: Any = response_type(library, self._whole, asynchronous=base.startswith("Async"))

    def _commit(self, exchange: Exchange, commit: Commit) -> Any:
        wire = commit.outcome.response
        body = wire.whole()
        if body is None:
            wire.on_done = exchange.finish
            return exchange.committed(commit, self._stream(exchange, wire, commit.info))
        exchange.finish(None)
        return exchange.committed(commit, self._whole(body))
