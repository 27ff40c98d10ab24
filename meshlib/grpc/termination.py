"""Graceful shutdown of a gRPC server behind load balancers that need time to notice.

A server that stops the moment SIGTERM arrives refuses the calls its callers still send. So, in order:

1. health says NOT_SERVING and the hooks of the drain run (deregistration): no new caller is sent here;
2. for `drain_seconds` the server goes on accepting;
3. it is stopped: connections are told to go away (GOAWAY), calls in flight have `grace` seconds to finish;
4. the mesh closes.

A second SIGTERM skips what is left of step 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from meshlib.drain import Draining

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

log = logging.getLogger("meshlib.drain")


def wait_for_termination(mesh: Mesh, server: Any, drain: Draining, *, grace: float, health: Any) -> None:
    """`server.wait_for_termination()` for `grpc.server`, in the main thread, with a drain on SIGTERM.

    `grace`: seconds for calls in flight. `health`: a `grpc_health.v1.health.HealthServicer`, None without one.
    """
    stopping = _Stopping(server, drain, grace, health)
    try:
        with _on_sigterm(stopping.on_signal):
            mesh.start()
            server.wait_for_termination()
    finally:
        server.stop(grace).wait()
        mesh.close()


class _Stopping:
    """What SIGTERM starts. The signal interrupts any line of the main thread, so everything that takes a lock is left
    to a thread.
    """

    def __init__(self, server: Any, drain: Draining, grace: float, health: Any) -> None:
        self._server = server
        self._drain = drain
        self._grace = grace
        self._health = health
        self._signalled = False
        self._stopped = threading.Event()

    def on_signal(self, *_: Any) -> None:
        again, self._signalled = self._signalled, True
        threading.Thread(target=self._stop if again else self._begin, name="meshlib-drain", daemon=True).start()

    def _begin(self) -> None:
        with _told():
            if self._health is not None:
                self._health.enter_graceful_shutdown()
        self._drain.begin()
        self._stopped.wait(self._drain.seconds)
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._server.stop(self._grace)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception("the health service could not be told; draining goes on")


@contextlib.contextmanager
def _on_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        log.info("not in the main thread: SIGTERM is left alone, and the server ends when it is stopped")
        yield
        return
    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


async def aio_wait_for_termination(mesh: Mesh, server: Any, drain: Draining, *, grace: float, health: Any) -> None:
    """The same for `grpc.aio.server`, on its loop; `health` is then `grpc_health.v1.health.aio.HealthServicer`."""
    first, second = asyncio.Event(), asyncio.Event()
    # Never cancelled: grpc.aio would take that for the server's own end, and drop the calls in flight.
    stopped = asyncio.ensure_future(server.wait_for_termination())
    try:
        async with _on_sigterm_in_loop(lambda: second.set() if first.is_set() else first.set()):
            mesh.start()
            if await _signalled_before(stopped, first):
                with _told():
                    if health is not None:
                        await health.enter_graceful_shutdown()
                drain.begin()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(second.wait(), drain.seconds)
    finally:
        await server.stop(grace)
        await stopped
        await asyncio.to_thread(mesh.close)


@contextlib.asynccontextmanager
async def _on_sigterm_in_loop(handler: Callable[[], None]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGTERM, handler)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows; a loop that is not the main thread's
        log.info("this loop takes no signals: SIGTERM is left alone, and the server ends when it is stopped")
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _signalled_before(stopped: asyncio.Future[Any], signalled: asyncio.Event) -> bool:
    """Wait for the signal or for the server's own end; whether it was the signal."""
    waiting = asyncio.ensure_future(signalled.wait())
    try:
        await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return signalled.is_set()
