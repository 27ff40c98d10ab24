"""Which endpoints can be connected to, where failover goes by that.

An endpoint that a call could not connect to is out of reach: it is not balanced to, and not missed when the health of
its priority is reckoned. A priority whose endpoints are all out of reach is thereby left for the next one. To know that
soon, and not one failed call after the other, the first failure has the others of the priority searched for one that
can be connected to. What is out of reach is tried again with back-off, beside the calls, and is back with the first
connection, as in gRPC (gRFC A56, and "connection backoff": 1 s, times 1.6, to 120 s, give or take a fifth).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable

from meshlib.balancing.base import Host, Rng
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.events import EndpointReachable, EndpointUnreachable
from meshlib.engine.runtime import Runtime
from meshlib.health.background import Background
from meshlib.model.backoff import BackoffPolicy
from meshlib.model.endpoint import Address
from meshlib.state.cells import ClusterState, EndpointState

BACKOFF = BackoffPolicy(base=1.0, factor=1.6, maximum=120.0, jitter=0.2)
WAVE = 0.1  # seconds until the next, larger part of a priority's endpoints is tried as well

_parents: list[Reach] = []
Connect = Callable[[Address], Awaitable[None]]


class Reach:
    """Of one mesh, in one process. `timeout` is the failover timer: a priority with no connection to any of its
    endpoints that long after the first failed is left. `connect` opens a connection and drops it, or raises OSError.
    """

    def __init__(
        self,
        runtime: Runtime,
        timeout: float,
        rng: Rng,
        *,
        connect: Connect | None = None,
        backoff: BackoffPolicy = BACKOFF,
    ) -> None:
        self.timeout = timeout
        self._runtime = runtime
        self._rng = rng
        self._connect = connect or open_and_drop
        self._backoff = backoff
        self._background = Background("meshlib-reach")
        self._searching: set[tuple[str, int]] = set()
        self._lost: dict[EndpointState, ClusterState] = {}
        self._tries: dict[EndpointState, tuple[int, float]] = {}

    def failed(self, cluster: ClusterPlan, host: Host) -> None:
        """A call could not connect to the endpoint."""
        if not host.cell.out_of_reach:
            self._background.call(lambda: self._failed(cluster, host))

    def doubted(self, cluster: ClusterPlan, host: Host) -> None:
        """A call ran out of time before it had sent its request to the endpoint."""
        if not host.cell.out_of_reach:
            self._background.call(lambda: self._look_at(cluster, host.priority))

    def reached(self, cluster: ClusterPlan, host: Host) -> None:
        """A call has connected to an endpoint that was out of reach: where nothing is in reach, everything is tried."""
        self._background.call(lambda: self._find(cluster.state, host))

    def keep(self) -> None:
        """In a forked child: this is the parent's. To close its event loop would take the parent's sockets from it."""
        _parents.append(self)

    def close(self) -> None:
        """Check no more. What is out of reach counts again, for nobody is left to find that it can be reached."""
        self._background.close()
        for cell, state in self._lost.items():
            cell.out_of_reach = False
            state.availability_changed()
        self._lost.clear()
        self._searching.clear()

    # Everything from here on runs in the background, and so one thing at a time ----------------------------------

    def _failed(self, cluster: ClusterPlan, host: Host) -> None:
        self._lose(cluster.state, host)
        self._look_at(cluster, host.priority)

    def _lose(self, state: ClusterState, host: Host) -> None:
        cell = host.cell
        if cell.out_of_reach or not self._is_there(state, cell):
            return
        cell.out_of_reach = True
        state.availability_changed()
        self._runtime.turn(EndpointUnreachable(time.monotonic(), state.name, host.address))
        if cell not in self._lost:  # found by a call and lost once more, it is still being tried
            self._lost[cell] = state
            self._background.spawn(self._regain(state, host))

    def _find(self, state: ClusterState, host: Host) -> None:
        if not host.cell.out_of_reach:
            return
        host.cell.out_of_reach = False
        state.availability_changed()
        self._runtime.turn(EndpointReachable(time.monotonic(), state.name, host.address))

    def _is_there(self, state: ClusterState, cell: EndpointState) -> bool:
        known = self._runtime.state.clusters.get(state.name)
        return known is state and state.endpoints.get(cell.address) is cell

    async def _regain(self, state: ClusterState, host: Host) -> None:
        """Try until the endpoint is found, or has gone."""
        cell = host.cell
        tries = self._tries_of(cell)
        while cell.out_of_reach and self._is_there(state, cell):
            tries += 1
            await asyncio.sleep(self._backoff.delay(tries, self._rng))
            if await self._connects(host):
                self._find(state, host)
        del self._lost[cell]
        self._tries[cell] = tries, time.monotonic()

    def _tries_of(self, cell: EndpointState) -> int:
        """Those that count: who accepts every connection and fails every handshake is not to be asked every second."""
        now = time.monotonic()
        for other, (_, at) in list(self._tries.items()):
            if now - at > self._backoff.maximum:
                del self._tries[other]
        return self._tries.pop(cell, (0, now))[0]

    def _look_at(self, cluster: ClusterPlan, priority: int) -> None:
        place = cluster.name, priority
        if place not in self._searching:
            self._searching.add(place)
            self._background.spawn(self._search(cluster, priority))

    async def _search(self, cluster: ClusterPlan, priority: int) -> None:
        """Look for one endpoint of the priority that can be connected to: few at first, twice as many each time. All
        those that were tried in vain are lost, and when the time is over those that were not heard of too.
        """
        found, wave = False, 1
        until = time.monotonic() + self.timeout
        members = [host for host in cluster.balancer.hosts if host.priority == priority and not host.cell.out_of_reach]
        waiting = deque(sorted(members, key=lambda _: self._rng.random()))  # clients do not all begin with the same one
        trying: dict[asyncio.Task[bool], Host] = {}
        try:
            while not found and (waiting or trying) and (left := until - time.monotonic()) > 0:
                for _ in range(min(wave, len(waiting))):
                    host = waiting.popleft()
                    trying[asyncio.create_task(self._connects(host))] = host
                wave *= 2
                patience = min(left, WAVE) if waiting else left
                done, _ = await asyncio.wait(trying, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    host = trying.pop(task)
                    if task.result():
                        found = True
                    else:
                        self._lose(cluster.state, host)
            for host in () if found else (*trying.values(), *waiting):
                self._lose(cluster.state, host)
        finally:
            for task in trying:
                task.cancel()
            self._searching.discard((cluster.name, priority))

    async def _connects(self, host: Host) -> bool:
        for address in host.endpoint.targets:
            try:
                async with asyncio.timeout(self.timeout):
                    await self._connect(address)
            except (OSError, TimeoutError):
                continue
            return True
        return False


async def open_and_drop(address: Address) -> None:
    """Connect, and close again. Raises OSError."""
    if address.path:
        _, writer = await asyncio.open_unix_connection(address.path)
    else:
        _, writer = await asyncio.open_connection(address.host, address.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
