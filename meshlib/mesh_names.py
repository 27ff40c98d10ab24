"""What a mesh has of names: DNS clusters are resolved in the background, and calls wait for a first answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from meshlib.engine.events import PlanChanged
from meshlib.errors import ConfigurationError
from meshlib.model.endpoint import Address, Locality
from meshlib.model.snapshot import Snapshot
from meshlib.model.zones import Local
from meshlib.resolve.resolver import Resolver

if TYPE_CHECKING:
    from meshlib.engine.runtime import Runtime


class FirstLookup:
    """The question whether a cluster's names have been looked up once, as the drivers ask it."""

    __slots__ = ("_cluster", "_deadline", "_mesh")

    def __init__(self, mesh: Named, cluster: str, deadline: float) -> None:
        self._mesh = mesh
        self._cluster = cluster
        self._deadline = deadline

    def ask(self) -> None:
        """Block until they have, or the time is over."""
        self._mesh.wait_until(self._settled, self._deadline)

    async def aask(self) -> None:
        """The same on the running event loop."""
        await self._mesh.await_until(self._settled, self._deadline)

    def _settled(self) -> bool:
        plan = self._mesh.runtime.plan.clusters.get(self._cluster)
        return plan is None or not plan.awaited


class Named:
    """The mesh's part in resolving."""

    if TYPE_CHECKING:  # Mesh's
        runtime: Runtime
        _publishing: threading.Lock
        _waiting: dict[object, Callable[[], None]]
        report: Any
        _follow_load_reports: Any
        _follow_health_checks: Any

    _names: Resolver
    _given: Snapshot | None  # as the source gave it: names, not addresses

    def _begin_names(self, servers: Sequence[str]) -> None:
        self._given = None
        self._names = Resolver(self._addresses_changed, self.report, _servers(servers))

    def _addresses_changed(self) -> None:
        """Put the addresses known now into force (on the resolver's thread)."""
        with self._publishing:
            given, before = self._given, self.runtime.plan
            if given is None:
                return
            snapshot = self._names.resolved(given)
            if snapshot.resolved == before.snapshot.resolved:
                return
            plan = self.runtime.compile(snapshot, before)
            self.runtime.install(plan, time.monotonic())
            self._follow_load_reports(plan)
            self._follow_health_checks(plan)
        self._wake_waiting()
        self.runtime.emit(lambda: PlanChanged(time.monotonic(), snapshot.version))

    # Waiting -------------------------------------------------------------------------------------------------------

    def wait_until(self, settled: Callable[[], bool], deadline: float) -> None:
        """Block until a plan makes `settled` true, or until `deadline` (monotonic)."""
        changed = threading.Event()
        with self._woken_by(changed.set):
            while not settled() and (left := deadline - time.monotonic()) > 0:
                changed.wait(left)
                changed.clear()

    async def await_until(self, settled: Callable[[], bool], deadline: float) -> None:
        """`wait_until` on the running event loop."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        with self._woken_by(lambda: _wake(loop, changed)):
            while not settled() and (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)
                changed.clear()

    @contextlib.contextmanager
    def _woken_by(self, wake: Callable[[], None]) -> Iterator[None]:
        key = object()
        self._waiting[key] = wake
        try:
            yield
        finally:
            self._waiting.pop(key, None)

    def _wake_waiting(self) -> None:
        for wake in list(self._waiting.values()):
            wake()


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is waiting any more
        loop.call_soon_threadsafe(changed.set)


def local_of(locality: Locality | str, cluster: str) -> Local:
    """Where a process is, as its mesh was told: `"region/zone/sub_zone"`, or as much of it as matters."""
    if isinstance(locality, str):
        parts = locality.split("/") if locality else []
        if len(parts) > 3:
            raise ConfigurationError(f"locality {locality!r} has {len(parts)} parts; give 'region/zone/sub_zone'")
        locality = Locality(*parts)
    return Local(locality, cluster)


def positive(name: str, seconds: float | None) -> float | None:
    """An option of seconds that may be left out. Raises ConfigurationError, naming it."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise ConfigurationError(f"{name}={seconds!r}: give a number of seconds above 0, or None")
    return seconds


def _servers(texts: Sequence[str]) -> tuple[Address, ...]:
    if isinstance(texts, str):
        raise ConfigurationError(f"name_servers={texts!r} is one text; give a list: [{texts!r}]")
    return tuple(map(_server, texts))


def _server(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):  # no port, or an IPv6 address in full
        return Address(text.strip("[]"), 53)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"name server {text!r}: port {port!r} is not a number from 1 to 65535")
    return Address(host.strip("[]"), int(port))
