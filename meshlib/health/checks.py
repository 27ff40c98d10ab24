"""The active health checks of one mesh: those the plan in force asks for, on a thread of their own.

Endpoints that a plan keeps keep their health and their schedule. Those of a cluster that has just come serve until
their first check has an answer (Envoy lets such a cluster wait); those that join later wait for it themselves.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from meshlib.balancing.base import Host, Rng
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.plan import Plan
from meshlib.engine.runtime import Runtime
from meshlib.health.background import Background
from meshlib.health.checked import Around, CheckedEndpoint
from meshlib.health.probe import MakeProbe
from meshlib.policy.health import UNCHECKED
from meshlib.state.cells import ClusterState

MAX_IN_FLIGHT = 256
"""Checks under way at once; the others wait for their turn, and their timeouts begin with it."""
_Key = tuple[str, str]
_parents: list[HealthChecks] = []


class HealthChecks:
    """In one process, until it is closed. `follow` makes the checks those of a plan. `refresh` has the plan compiled
    anew from what it was made of; it is called inside the checks, and must not block.
    """

    def __init__(self, runtime: Runtime, rng: Rng, make: MakeProbe, refresh: Callable[[], None]) -> None:
        self._background = Background("meshlib-health")
        self._around = Around(runtime, rng, self._background, asyncio.Semaphore(MAX_IN_FLIGHT), make, refresh)
        self._endpoints: dict[_Key, CheckedEndpoint] = {}
        self._states: dict[str, ClusterState] = {}
        self._lock = threading.Lock()  # over plans, not over checks
        self._closed = False

    def follow(self, plan: Plan) -> None:
        """Begin the checks the plan asks for, and end those it no longer does. From any thread."""
        clusters = [cluster for cluster in plan.clusters.values() if asks_for_checks(cluster)]
        wanted = {
            (cluster.name, host.address): (cluster, host)
            for cluster in clusters
            for host in cluster.balancer.hosts
            if host.endpoint.health_check is None or not host.endpoint.health_check.disabled
        }
        with self._lock:
            if self._closed:
                return
            for key in [key for key in self._endpoints if key not in wanted]:
                self._endpoints.pop(key).end()
            joined = [host for key, (cluster, host) in wanted.items() if self._place(key, cluster, host)]
            self._states = {cluster.name: cluster.state for cluster, _ in wanted.values()}
            if joined:
                for cluster in clusters:
                    cluster.state.availability_changed()

    def take_out(self, cluster: ClusterPlan, host: Host) -> None:
        """A response of the endpoint said that it is to be taken out at once. Called inside a call."""
        endpoint = self._endpoints.get((cluster.name, host.address))
        if endpoint is not None:
            endpoint.failed_by_response()

    def wait_first(self, seconds: float) -> None:
        """Block until every endpoint has been checked once, or the time is over."""
        until = time.monotonic() + seconds
        for endpoint in list(self._endpoints.values()):
            endpoint.heard.wait(max(0.0, until - time.monotonic()))

    def keep(self) -> None:
        """In a forked child: this is the parent's. To close its event loop would take the parent's sockets from it."""
        _parents.append(self)

    def close(self) -> None:
        """Check no more, for good. What was found counts no longer: nobody is left to find otherwise."""
        with self._lock:
            self._closed = True
            endpoints, self._endpoints = self._endpoints, {}
        self._background.close(for_good=True)
        for endpoint in endpoints.values():
            endpoint.forget()

    def _place(self, key: _Key, cluster: ClusterPlan, host: Host) -> bool:
        """Have the endpoint checked; True when it has joined a cluster that was there before."""
        known = self._endpoints.get(key)
        if known is not None and known.cell is host.cell and _same_checks(known.place[0], cluster):
            known.place = cluster, host
            return False
        if known is not None:
            known.stop()
        old = self._states.get(cluster.name) is cluster.state
        joins = old and host.cell.probed is None and cluster.config.health_checks_when == "always"
        if joins:
            host.cell.probed = UNCHECKED._replace(pending=cluster.config.ignore_new_hosts_until_first_hc)
        self._endpoints[key] = CheckedEndpoint(self._around, cluster, host)
        self._endpoints[key].start()
        return joins


def asks_for_checks(cluster: ClusterPlan) -> bool:
    """Whether its own endpoints are to be checked."""
    return bool(cluster.config.health_checks) and not cluster.children


def _same_checks(before: ClusterPlan, now: ClusterPlan) -> bool:
    one, other = before.config, now.config
    return one is other or (
        one.health_checks == other.health_checks and one.health_checks_when == other.health_checks_when
    )
