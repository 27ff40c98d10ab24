"""The sub-channels of one mesh: those of grpcio, and of each event loop of grpc.aio."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from meshlib.grpc import unpatched
from meshlib.grpc.forked import refusals, refusing
from meshlib.grpc.subchannels import SubChannels

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

_parents: list[Any] = []
"""What a forked child found: channels of its parent. Kept for ever, because even to let go of one would close it."""


class Shared:
    """Made anew in a forked child: the parent's channels are the parent's."""

    _generation: int
    _sync: SubChannels
    _by_loop: dict[asyncio.AbstractEventLoop, SubChannels]
    _closers: dict[asyncio.AbstractEventLoop, _Closer]
    # The last loop and its sub-channels, in one value: threads with a loop each read and write it at once.
    _last: tuple[asyncio.AbstractEventLoop, SubChannels] | None

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._reset("", "")

    def sync(self) -> SubChannels:
        """The sub-channels of every thread."""
        if self._mesh.generation != self._generation:
            self._after_fork()
        return self._sync

    def aio(self) -> SubChannels:
        """The running loop's sub-channels; the last loop is remembered, because there is nearly always only one."""
        if self._mesh.generation != self._generation:
            self._after_fork()
        loop, last = asyncio.get_running_loop(), self._last
        if last is not None and last[0] is loop:
            return last[1]
        found = self._by_loop.get(loop)
        if found is None:
            found = self._new_loop(loop)
        self._last = (loop, found)
        return found

    def opened(self, channel: Any) -> None:
        """A mesh channel was made."""
        self._open.add(channel)

    def closed(self, channel: Any) -> None:
        """A blocking mesh channel was closed: the last one closes the connections."""
        self._open.discard(channel)
        if not self._others(channel):
            self.sync().close()

    async def aclosed(self, channel: Any) -> None:
        """A mesh channel of grpc.aio was closed: the last one closes the connections of the running loop."""
        self._open.discard(channel)
        if not self._others(channel):
            self.aio().close()
            await self._closers[asyncio.get_running_loop()].wait()

    def _others(self, channel: Any) -> bool:
        """Whether another channel of the same kind is open."""
        return any(isinstance(other, type(channel)) for other in list(self._open))

    def _reset(self, sync_refused: str, aio_refused: str) -> None:
        self._used = False
        self._make_aio = refusing(aio_refused) if aio_refused else self._aio_channel
        make = refusing(sync_refused) if sync_refused else self._sync_channel
        self._sync = SubChannels(self._mesh.upstreams, make, _close_sync)
        self._by_loop = {}
        self._closers = {}
        self._last = None
        self._generation = self._mesh.generation  # last: whoever sees it uses nothing of the parent's

    def _after_fork(self) -> None:
        _parents.append((self._sync, self._by_loop, self._last))
        self._reset(*refusals(self._used, self._by_loop))

    def _sync_channel(self, *given: Any) -> Any:
        self._used = True
        return unpatched.channel(*given)

    def _aio_channel(self, *given: Any) -> Any:
        self._used = True
        return unpatched.aio_channel(*given)

    def _new_loop(self, loop: asyncio.AbstractEventLoop) -> SubChannels:
        """Sub-channels for a loop; those of loops that were closed meanwhile are let go, which closes them."""
        for old in list(self._by_loop):
            if old.is_closed():
                self._by_loop.pop(old, None)
                self._closers.pop(old, None)
        closer = self._closers[loop] = _Closer(loop)
        return self._by_loop.setdefault(loop, SubChannels(self._mesh.upstreams, self._make_aio, closer))


class _Closer:
    """Closes channels of grpc.aio, which takes a task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, channel: Any) -> None:
        task = self._loop.create_task(channel.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Until everything that is being closed is closed."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def _close_sync(channel: Any) -> None:
    channel.close()
