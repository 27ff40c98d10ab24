"""Mesh: one per process. Owns the source, the plan in force and the factories for clients and servers."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from meshlib.engine.events import Observer, PlanChanged
from meshlib.engine.faults import Faults, enabled_by
from meshlib.engine.plan import Attached, Plan
from meshlib.engine.runtime import Runtime, UnknownHosts
from meshlib.errors import NotReadyError
from meshlib.mesh_breakers import breakers_of, event_of
from meshlib.mesh_doors import Doors
from meshlib.mesh_health import Checked
from meshlib.mesh_limits import filters_of, shared_of
from meshlib.mesh_names import FirstLookup, Named, local_of, positive
from meshlib.mesh_sources import FromSources
from meshlib.mesh_telemetry import Instrumented
from meshlib.model.endpoint import Locality
from meshlib.model.report import Issue
from meshlib.model.snapshot import Snapshot
from meshlib.policy.breaker import Transition
from meshlib.sources.base import Source
from meshlib.telemetry import everywhere
from meshlib.telemetry.metrics.cells import Cells
from meshlib.telemetry.propagators import Propagation

if TYPE_CHECKING:
    from meshlib.admin.socket import AdminSocket
    from meshlib.drivers.mirrors import Mirrors
    from meshlib.engine.request_limit import RateLimitConfig
    from meshlib.grpc.load_report_client import OutOfBandReports
    from meshlib.grpc.quota_client import QuotaClient
    from meshlib.grpc.rate_limit_client import RateLimitClient
    from meshlib.health.reach import Reach
    from meshlib.identity.identity import Identity

log = logging.getLogger("meshlib")
_MAX_ISSUES = 10_000  # their texts come from the control plane; the oldest are forgotten
_meshes: weakref.WeakSet[Mesh] = weakref.WeakSet()


class Mesh(Doors, FromSources, Instrumented, Named, Checked):
    """A service's membership in the mesh.

    `source` says what the mesh looks like (`meshlib.sources`); the class methods make the usual ones. Nothing starts
    until the first call, `start()`, or `with`: safe in a pre-fork master, and a forked child starts anew by itself.

    `unknown_hosts`: what happens to hosts nothing speaks for, "pass_through" (default) or "reject".
    `breakers`: circuit breakers from code by cluster name, a `CircuitBreaker` policy or a `pybreaker.CircuitBreaker`.
    `rate_limits`: limits from code by cluster name, shared ones (`SharedRateLimit`) or this process's own, as a server
    takes them. `fetch_timeout`: seconds a call waits for configuration that
    has not arrived (15, as gRPC and Envoy). `identity`: the workload's certificates for mutual TLS, one
    (`meshlib.identity.Identity`) or several by certificate provider instance (gRFC A29).
    `trust_envoy_headers`: whether calls may ask for timeouts, retries and hedging in `x-envoy-*` headers (true: they
    are this process's own; Envoy trusts internal requests so).
    `propagators`: the trace headers understood and written, of "tracecontext", "b3" and "b3multi"; by default those of
    `OTEL_PROPAGATORS`, else "tracecontext". `baggage`: the keys of W3C baggage that may pass (none; "*" is all).
    `name_servers`: DNS servers ("10.0.0.2", "10.0.0.2:5353") for the clusters that name none, in place of the system's
    resolver; they need dnspython (`meshlib[dns]`).
    `locality` ("region/zone/sub_zone") is where this process runs, where the source does not know, and `local_cluster`
    the cluster it is an endpoint of itself: with both, requests are kept in the zone (Envoy: zone aware routing).
    `failover_timeout`: seconds after which a priority (or a cluster of an aggregate cluster) is left for the next when
    no connection to any of its endpoints can be made, gRPC's failover timer (there 10; gRFC A56). By default health
    alone decides, as in Envoy.
    `faults` False injects none, whoever configured them (by default `MESHLIB_FAULTS` says; see `Mesh.faults`).
    `seed` makes random choices repeatable. `admin`: where to open the admin socket (`meshlib.admin.socket`), `{pid}` in
    it being the process's number; none by default.
    """

    runtime: Runtime
    _started: bool
    _lock: Any
    _publishing: threading.Lock
    _ready: threading.Event
    _waiting: dict[object, Callable[[], None]]
    _published: float  # when the plan in force came
    _admin: AdminSocket | None

    def __init__(
        self,
        source: Source,
        *,
        unknown_hosts: UnknownHosts = "pass_through",
        breakers: Mapping[str, Any] | None = None,
        rate_limits: Mapping[str, RateLimitConfig | Sequence[RateLimitConfig]] | None = None,
        fetch_timeout: float = 15.0,
        identity: Identity | Mapping[str, Identity] | None = None,
        propagators: Sequence[str] | None = None,
        baggage: Sequence[str] = (),
        name_servers: Sequence[str] = (),
        locality: Locality | str = "",
        local_cluster: str = "",
        failover_timeout: float | None = None,
        faults: bool | None = None,
        trust_envoy_headers: bool = True,
        seed: int | None = None,
        admin: str | os.PathLike[str] | None = None,
    ) -> None:
        self.source = source
        self.identity = identity
        self.generation = 0
        self._seed = seed
        self._admin_path = admin
        self._options: dict[str, Any] = {
            "unknown_hosts": unknown_hosts,
            "fetch_timeout": fetch_timeout,
            "propagation": Propagation.from_environment(propagators, baggage, os.environ),
            "trust_envoy_headers": trust_envoy_headers,
            "wall_clock": time.time,
            "faults": Faults(enabled=enabled_by(os.environ.get("MESHLIB_FAULTS", "")) if faults is None else faults),
        }
        self._breakers = dict(breakers or {})
        self._local = local_of(locality, local_cluster)
        self._failover_timeout = positive("failover_timeout", failover_timeout)
        self._limits = {name: _several(limit) for name, limit in (rate_limits or {}).items()}
        self._issues: dict[Issue, None] = {}
        self._otel: list[Callable[[], None]] = []  # what undoes `instrument`
        self._cells: Cells | None = None  # what calls measure, once a Prometheus collector wants it
        self._begin_names(name_servers)
        self._reset()
        _meshes.add(self)
        everywhere.made(self)

    # ------------------------------------------------------------------ life

    def start(self) -> Self:
        """Start the source. Idempotent per process; calls do it by themselves."""
        self.ensure_started()
        return self

    def ensure_started(self) -> None:
        """Start unless started: one attribute load on the hot path."""
        if self._started:
            return
        with self._lock:
            if not self._started:
                self._started = True  # before, because an observer of the first plan may make a call
                try:
                    self.source.start(self)
                except BaseException:
                    self._started = False
                    raise
                if self._admin_path is not None:
                    self._admin = self._open_admin(self._admin_path)

    def close(self) -> None:
        """Stop the source, and copies of requests. Plans stay in force, so calls in flight end well; idempotent."""
        # The source is closed under the lock: a call that would start it anew waits until it is really gone.
        with self._lock:
            started, self._started = self._started, False
            if started:
                self.source.close()
                self._names.close()
            admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()
        if self._reach is not None:
            self._reach.close()
        self._close_health_checks()
        load_reports: OutOfBandReports | None = self.__dict__.pop("load_reports", None)
        if load_reports is not None:
            load_reports.close()
        for name in ("rate_limit_client", "quota_client"):
            asking: RateLimitClient | QuotaClient | None = self.__dict__.pop(name, None)
            if asking is not None:
                asking.close()
        mirrors: Mirrors | None = self.__dict__.pop("mirrors", None)
        if mirrors is not None:
            mirrors.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # ------------------------------------------------------------------ configuration

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self.runtime.plan

    @property
    def faults(self) -> Faults:
        """The faults that are injected: their switch, and more of them from code (`meshlib.testing.faults`)."""
        return self.runtime.faults

    @property
    def ready(self) -> bool:
        """Whether any configuration has arrived."""
        return self._ready.is_set()

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Every distinct rejected resource and degraded field the source has told of, oldest first."""
        return tuple(self._issues)

    def wait_ready(self, timeout: float = 15.0) -> Self:
        """Block until the first configuration is in force. Raises NotReadyError after `timeout` seconds. The names of
        DNS clusters are waited for as long, but that one cannot be resolved is no error here: its calls fail (UH). So
        are the first health checks, whatever comes of them.
        """
        until = time.monotonic() + timeout
        self.ensure_started()
        if not self._ready.wait(timeout):
            errors = [str(issue) for issue in self.issues if issue.severity == "error"]
            why = ": " + "; ".join(errors[:3]) if errors else ""
            raise NotReadyError(f"no usable configuration from {self.source!r} within {timeout:g} s{why}")
        self._names.wait_first(until - time.monotonic())
        self._wait_first_checks(until - time.monotonic())
        return self

    def publish(self, snapshot: Snapshot) -> None:
        """Compile a snapshot and put it into force (called by the source). Raises ResourceError, leaving the last good
        plan in force.
        """
        with self._publishing:
            resolved = self._names.resolved(snapshot)
            plan = self.runtime.compile(resolved, self.runtime.plan if self._ready.is_set() else None)
            self._published = time.monotonic()
            self.runtime.install(plan, self._published)
            self._given = snapshot
            self._ready.set()
            self._names.follow(snapshot)
            self._follow_load_reports(plan)
            self._follow_health_checks(plan)
        self._wake_waiting()
        self.runtime.emit(lambda: PlanChanged(time.monotonic(), snapshot.version))

    def report(self, issues: Sequence[Issue]) -> None:
        """Log each distinct issue once (called by the source)."""
        for issue in issues:
            if issue not in self._issues:
                self._issues[issue] = None
                if len(self._issues) > _MAX_ISSUES:
                    self._issues.pop(next(iter(self._issues)), None)
                level = logging.ERROR if issue.severity == "error" else logging.WARNING
                log.log(level, "%s", issue)

    def wait_for(self, authority: str, deadline: float) -> None:
        """Block until the plan speaks for `authority`, or it is known that nothing does, or `deadline` (monotonic)."""
        self.source.request(authority)
        self.wait_until(lambda: self._settled(authority), deadline)

    async def await_for(self, authority: str, deadline: float) -> None:
        """`wait_for` on the running event loop."""
        self.source.request(authority)
        await self.await_until(lambda: self._settled(authority), deadline)

    def on_event(self, observer: Observer) -> None:
        """Tell `observer` of every event (`meshlib.engine.events`), on the thread where it happens."""
        self.runtime.observers = (*self.runtime.observers, observer)

    def stats(self) -> dict[str, int]:
        """Counters under Envoy's names: `cluster.<name>.upstream_rq_total`, `<prefix>.http_local_rate_limit.ok`, ..."""
        clusters = list(self.runtime.state.clusters.values())
        counted = {
            f"cluster.{cluster.name}.{name}": counter.value
            for cluster in clusters
            for name, counter in cluster.stats.items()
        }
        return counted | self.runtime.faults.stats() | dict(self.runtime.filters.counts())

    # ------------------------------------------------------------------ inside

    def _reset(self) -> None:
        """Everything that belongs to one process."""
        self._started = False
        parents_admin: AdminSocket | None = self.__dict__.get("_admin")
        if parents_admin is not None:
            parents_admin.close()
        self._admin = None
        # Re-entrant: a source may publish inside `start`, and an observer of that may close the mesh.
        self._lock = threading.RLock()
        self._publishing = threading.Lock()
        self._ready = threading.Event()
        self._waiting = {}
        self.__dict__.pop("upstreams", None)
        parents: OutOfBandReports | None = self.__dict__.pop("load_reports", None)
        if parents is not None:
            parents.keep()
        self._keep_health_checks()
        self.__dict__.pop("mirrors", None)
        known: Runtime | None = self.__dict__.get("runtime")
        rng = random.Random(self._seed)  # noqa: S311  it balances, it keeps no secret
        self.runtime = Runtime(rng, attached=self._attached(), background=_in_background, **self._options)
        self.runtime.state.seed = random.Random(self._seed).getrandbits(64)  # noqa: S311  nor does this
        self.runtime.first_lookup = partial(FirstLookup, self)
        self.runtime.filters.services, self.runtime.filters.quotas = self._rate_limit_services, self._quotas
        self.runtime.filters.attached = filters_of(self._limits, lambda: self.runtime.filters)
        parents_reach: Reach | None = self.__dict__.get("_reach")
        if parents_reach is not None:
            parents_reach.keep()
        self._reach = self.runtime.attached.reach = self._failover(rng)
        if known is not None:
            self.runtime.observers, self.runtime.tracing = known.observers, known.tracing

    def _open_admin(self, path: str | os.PathLike[str]) -> AdminSocket | None:
        from meshlib.admin.pages import pages
        from meshlib.admin.socket import opened

        return opened(path, pages(lambda: self.runtime, lambda: self.ready))

    def _failover(self, rng: random.Random) -> Reach | None:
        if self._failover_timeout is None:
            return None
        from meshlib.health.reach import Reach

        return Reach(self.runtime, self._failover_timeout, rng)

    def _attached(self) -> Attached:
        breakers, changed = breakers_of(self._breakers, self._breaker_changed), self._breaker_changed
        return Attached(shared_of(self._limits), breakers, changed, self._local, take_out=self._take_out)

    def _settled(self, authority: str) -> bool:
        """Whether nothing is to be waited for; what turns out to be missing on the way is asked for."""
        plan = self.runtime.plan
        hosts = {name for scheme in ("http", "https") for name in plan.outbound.awaited(scheme, authority)}
        for name in hosts:
            self.source.request(name)
        if hosts:
            return False
        return plan.find("http", authority) is not None or not plan.may_come("http", authority)

    def _breaker_changed(self, change: Transition) -> None:
        self.runtime.turn(event_of(change))

    def _after_fork(self) -> None:
        """In a forked child: the parent's thread, stream, connections and counts are not ours. Keep serving by what the
        parent knew, and start a source of our own on first use.
        """
        known = self._given if self._ready.is_set() else None
        started = self._started
        self.generation += 1
        self._reset()
        self._measure_anew()
        self._names.forget()
        if started:
            self.source.forget()
        if known is not None:
            self._given = known
            self.runtime.install(self.runtime.compile(self._names.resolved(known), None))
            self._published = time.monotonic()
            self._ready.set()


def _in_background(work: Callable[[], None]) -> None:
    """Run something once, off the calling thread. Rare (a large cluster's availability changed), so a thread each."""
    threading.Thread(target=work, name="meshlib-refresh", daemon=True).start()


def _several(limit: RateLimitConfig | Sequence[RateLimitConfig]) -> Sequence[RateLimitConfig]:
    return (limit,) if isinstance(limit, str) or not isinstance(limit, Sequence) else tuple(limit)


def _after_fork_in_child() -> None:
    for mesh in list(_meshes):
        mesh._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
