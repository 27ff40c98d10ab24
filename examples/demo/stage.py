"""The stage the acts play on: configuration, processes, mesh, calls, events, screen, and the ways to wait for them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from examples.demo.calls import Ledger
from examples.demo.certificates import Certificates
from examples.demo.config_folder import endpoints
from examples.demo.direct import PATIENCE, Direct
from examples.demo.processes import Child, Fleet, listening_port
from examples.demo.promises import Promise, Results
from meshlib import Mesh
from meshlib.engine.events import AttemptEnded, CallEnded, Event
from meshlib.identity import Identity

ACCOUNTS = {"stable": "payments", "canary": "payments", "flaky": "hints", "receipts": "receipts"}  # by role

T = TypeVar("T")
E = TypeVar("E")


class StoryOverError(Exception):
    """An edit had no effect: the acts that follow would prove nothing."""


class Screen(Protocol):
    """Where the story is told."""

    def act(self, title: str) -> None:
        """A new act begins."""

    def say(self, text: str) -> None:
        """Something happened, in words."""

    def event(self, event: Event) -> None:
        """The mesh told of something (on any thread)."""

    def promise(self, promise: Promise) -> None:
        """A promise was checked."""


class Configuration(Protocol):
    """What the mesh is configured by, wherever that is kept. `revision` counts the edits; responses carry it."""

    folder: Path
    revision: int

    def edit(self, **values: object) -> int:
        """Change some values, all at once; the new revision."""

    def spoil(self, **values: object) -> None:
        """An edit that cannot be valid."""


class Stage:
    """`pace` shortens (below 1) or lengthens every act. `names` are the instances by address. Without `certificates`
    everything is plain HTTP.
    """

    def __init__(
        self, conf: Configuration, screen: Screen, pace: float, certificates: Certificates | None = None
    ) -> None:
        self.conf = conf
        self.screen = screen
        self.pace = pace
        self.results = Results()
        self.ledger = Ledger()
        self.events: list[Event] = []
        self.retried: Counter[tuple[str, str]] = Counter()  # attempts that were retried, by cluster and address
        self.instances: dict[str, Child] = {}
        self.ports: dict[str, int] = {}
        self.roles: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.certificates = certificates
        self.fleet: Fleet
        self.control_plane: Child
        self.mesh: Mesh

    # ------------------------------------------------------------------ people

    async def open_control_plane(self) -> int:
        """Start the control plane, or start it again; its port, once it serves."""
        self.control_plane = self.fleet.control_plane(self.conf.folder)
        return await self.fleet.xds_port(self.control_plane)

    async def enter(self, *cast: tuple[str, str]) -> None:
        """Start instances, given as (role, name), and wait until all are ready. A name seen before keeps its port."""
        for role, name in cast:
            if self.certificates is not None:
                self.certificates.issue(name, ACCOUNTS[role])
            self.instances[name] = self.fleet.instance(role, name, self.ports.get(name, 0))
            self.roles[name] = role
        for _, name in cast:
            self.ports[name] = await listening_port(self.instances[name])
            self.names[f"127.0.0.1:{self.ports[name]}"] = name
            async with self.direct(name) as instance:
                await instance.call()

    def account(self, name: str) -> str:
        """The service account an instance runs under."""
        return ACCOUNTS[self.roles[name]]

    def direct(self, name: str, identity: Identity | None = None) -> Direct:
        """One instance itself, past the control plane; called as the client unless another identity is given."""
        address, speaks_grpc = f"127.0.0.1:{self.ports[name]}", self.roles[name] == "receipts"
        ours = self.certificates.client if self.certificates is not None else None
        return Direct(address, identity or ours, speaks_grpc=speaks_grpc)

    def endpoints(self, *names: str) -> str:
        """The endpoint list of these instances, for an edit."""
        return endpoints(self.ports[name] for name in names)

    async def served(self) -> None:
        """Wait until the client knows the endpoints just written; only then is there something to promise."""
        hosts = {"hints" if role == "flaky" else role for role in self.roles.values()}

        def known() -> bool | None:
            clusters = self.mesh.plan.clusters
            return all(name in clusters and clusters[name].balancer.hosts for name in hosts) or None

        if await self.wait_for(known) is None:
            heard = self.control_plane.output()
            raise RuntimeError(f"the client heard of no endpoints (edit {self.conf.revision}): {heard}")

    # ------------------------------------------------------------------ happenings

    def observe(self, event: Event) -> None:
        """Hear an event of the mesh; on any thread, within a call, so it must be quick."""
        match event:
            case AttemptEnded(cluster=cluster, endpoint=address, retry=reason) if reason:
                self.retried[cluster, address] += 1
            case AttemptEnded() | CallEnded():
                pass
            case _:
                self.events.append(event)
                self.screen.event(event)

    async def change(self, **values: object) -> int:
        """Edit the configuration, and measure until the first call that it routed began. Returns its revision."""
        began = time.monotonic()
        revision = self.conf.edit(**values)
        effect = await self.effect_of(revision, began)
        self.results.effects.append(effect)
        self.screen.say(f"edit {revision} in effect {effect * 1000:.0f} ms after it was written")
        return revision

    async def effect_of(self, revision: int, began: float) -> float:
        """Seconds from `began` to the start of the first call routed by that edit. Raises StoryOverError, with a broken
        promise, when there is none.
        """

        def first() -> float | None:
            routed = [call.began for call in self.ledger.since(began) if (call.revision or 0) >= revision]
            return max(0.0, min(routed) - began) if routed else None

        effect = await self.wait_for(first)
        if effect is None:
            said = self.control_plane.output().strip().rpartition("\n")[2]
            self.promise(f"edit {revision} takes effect", kept=False, measured=f"not in {PATIENCE:g} s; {said}")
            raise StoryOverError
        return effect

    async def wait_for(self, look: Callable[[], T | None], seconds: float = PATIENCE) -> T | None:
        """The first value of `look()` that is not None; None when the time is over."""
        deadline = time.monotonic() + seconds
        while (found := look()) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - other threads and processes
            await asyncio.sleep(0.005)
        return found

    async def hold(self, seconds: float) -> None:
        """Let the load run."""
        await asyncio.sleep(seconds * self.pace)

    def heard(self, kind: type[E], since: float, test: Callable[[E], bool] = lambda event: True) -> E | None:
        """The first event of a kind since a moment that passes the test."""
        return next((e for e in self.events if isinstance(e, kind) and e.at >= since and test(e)), None)

    async def wait_event(self, kind: type[E], since: float, test: Callable[[E], bool] = lambda event: True) -> E | None:
        """`heard`, waited for."""
        return await self.wait_for(lambda: self.heard(kind, since, test))

    def promise(self, text: str, kept: bool, measured: str) -> None:
        """Hold the mesh to something, with the evidence."""
        self.screen.promise(self.results.promise(text, kept, measured))
