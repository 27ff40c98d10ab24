"""One endpoint under the active checks of its cluster: a task for each, and what they make of the endpoint together."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from meshlib.balancing.base import Host, Rng
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.events import EndpointHealth, EndpointHealthChanged
from meshlib.engine.judging import checked_healthy
from meshlib.engine.runtime import Runtime
from meshlib.health.background import Background
from meshlib.health.probe import MakeProbe, Probe, Target, target_of
from meshlib.model.health import HealthCheck
from meshlib.policy.health import PASSED, UNCHECKED, FailureKind, Finding, HealthMonitor, Transition, combined
from meshlib.state.cells import ActiveHealth

log = logging.getLogger("meshlib")
_PASSIVE = Finding(FailureKind.PASSIVE, "a response said x-envoy-immediate-health-check-fail")


@dataclass(frozen=True, slots=True)
class Around:
    """What the checks of one mesh share. `slots` bounds how many are in flight at once. `refresh` has the plan compiled
    anew, elsewhere: an endpoint that was there for its health alone has lost it.
    """

    runtime: Runtime
    rng: Rng
    background: Background
    slots: asyncio.Semaphore
    make: MakeProbe
    refresh: Callable[[], None]


class _Check:
    """One of the checks."""

    __slots__ = ("config", "heard", "monitor", "probe", "target", "task")

    def __init__(self, config: HealthCheck, flags: ActiveHealth) -> None:
        self.config = config
        self.monitor = HealthMonitor(config, flags)
        self.heard = False
        self.probe: Probe | None = None
        self.target: Target | None = None
        self.task: asyncio.Task[None] | None = None


class CheckedEndpoint:
    """`start` and `stop` from any thread; what has a leading underscore runs in the background, one at a time.

    `place` is the endpoint in the plan in force, replaced as a whole. `heard` is set when every check has had a result.
    """

    def __init__(self, around: Around, cluster: ClusterPlan, host: Host) -> None:
        self.place = cluster, host
        self.cell = host.cell
        self.heard = threading.Event()
        self._around = around
        self._always = cluster.config.health_checks_when == "always"
        begin = UNCHECKED if self._always else ActiveHealth()
        self._checks = [_Check(check, host.cell.probed or begin) for check in cluster.config.health_checks]
        if not self._always:
            self.heard.set()

    def start(self) -> None:
        """Begin to check."""
        self._around.background.call(self._start)

    def stop(self) -> None:
        """Check no more; others go on from what was found."""
        self._around.background.call(self._stop)

    def end(self) -> None:
        """Check no more; what was found counts no longer, once nothing more can be found."""
        self._around.background.call(self._end)

    def failed_by_response(self) -> None:
        """A response to a call said that the endpoint is to be taken out at once."""
        probed = self.cell.probed
        if probed is None or not (probed.failed and probed.excluded):
            self._around.background.call(self._failed_by_response)

    def forget(self) -> None:
        """Nobody checks it any more. Only where nothing runs in the background, or in it."""
        probed, self.cell.probed = self.cell.probed, None
        if probed is not None:
            self.place[0].state.availability_changed()
            if _health(probed) != "healthy":
                self._told(probed, ActiveHealth(), "it is checked no more")
        self.heard.set()

    # Everything from here on runs in the background --------------------------------------------------------------

    def _start(self) -> None:
        for check in self._checks:
            check.task = self._around.background.spawn(self._run(check))

    def _stop(self) -> None:
        for check in self._checks:
            if check.task is not None:
                check.task.cancel()

    def _end(self) -> None:
        self._stop()
        self.forget()

    async def _run(self, check: _Check) -> None:
        monitor, rng = check.monitor, self._around.rng
        wait = monitor.first_check(rng)
        try:
            while True:
                await asyncio.sleep(wait)
                wait = await self._once(check) if self._due() else monitor.jittered(check.config.interval, rng)
        except ImportError as error:
            log.error("health checks of %s are not made: %s", self.place[1].address, error)
            monitor.flags = ActiveHealth()
            self._heard(check, PASSED)
        finally:
            if check.probe is not None:
                await check.probe.aclose()

    def _due(self) -> bool:
        """Whether anybody wants to know."""
        cell = self.cell
        return self._always or cell.ejected or cell.out_of_reach or (cell.probed is not None and cell.probed.failed)

    async def _once(self, check: _Check) -> float:
        """Check, and say when to do so again."""
        async with self._around.slots:
            self._count("attempt")
            finding = await self._probed(check)
        transition = check.monitor.take(finding)
        self._tell(check.config, finding, transition)
        self._heard(check, finding)
        stats = self.place[0].stats
        traffic = stats["upstream_rq_total"].value > 0 or stats["upstream_cx_total"].value > 0
        return check.monitor.next_check(finding.kind is None, transition, traffic, self._around.rng)

    async def _probed(self, check: _Check) -> Finding:
        try:
            async with asyncio.timeout(check.config.timeout):
                probe = await self._probe(check)
                return await probe.check()
        except TimeoutError:
            return Finding(FailureKind.NETWORK_TIMEOUT, f"no answer within {check.config.timeout:g} s")
        except ImportError:
            raise
        except Exception as error:  # whatever it is, the endpoint is checked again
            log.exception("a health check of %s could not be made", self.place[1].address)
            return Finding(FailureKind.NETWORK, str(error))

    async def _probe(self, check: _Check) -> Probe:
        """What makes the check, at where the endpoint is checked now."""
        cluster, host = self.place
        target = target_of(cluster, host, check.config)
        if check.probe is None or check.target != target:
            if check.probe is not None:
                await check.probe.aclose()
            check.target = target
            check.probe = self._around.make(lambda: self.place, check.config, target)
        return check.probe

    def _failed_by_response(self) -> None:
        for check in self._checks:
            check.monitor.flags = check.monitor.flags._replace(excluded=True)
            self._tell(check.config, _PASSIVE, check.monitor.take(_PASSIVE))
            self._heard(check, _PASSIVE)

    def _tell(self, config: HealthCheck, finding: Finding, transition: Transition) -> None:
        """Count the result, and log it if asked to."""
        kind = finding.kind
        self._count("success" if kind is None else "failure")
        if kind is not None and (kind.network or kind is FailureKind.PASSIVE):
            self._count("network_failure" if kind.network else "passive_failure")
        if finding.verified:
            self._count("verify_cluster")
        if kind is not None and config.always_log_health_check_failures:
            log.warning("health check of %s failed: %s", self.place[1].address, finding.reason)
        elif kind is None and config.always_log_health_check_success and transition != "changed":
            log.info("health check of %s passed", self.place[1].address)

    def _heard(self, check: _Check, finding: Finding) -> None:
        """There is a result: if there is one of each check, they count."""
        check.heard = True
        if all(each.heard for each in self._checks) or not self._always:
            self._put(combined([each.monitor.flags for each in self._checks]), finding)
            self.heard.set()

    def _put(self, flags: ActiveHealth, finding: Finding) -> None:
        cluster, host = self.place
        before = self.cell.probed or ActiveHealth()
        self.cell.probed = flags
        if flags[:4] != before[:4]:
            cluster.state.availability_changed()
            if flags.failed and host.address in cluster.lingering:
                self._around.refresh()
        if _health(before) != _health(flags) or (flags.failed and not self.heard.is_set()):
            self._told(before, flags, finding.reason or ("degraded" if finding.degraded else "passed"))
        if finding.kind is None and not flags.failed:
            self._bring_back(cluster, host)

    def _told(self, before: ActiveHealth, now: ActiveHealth, reason: str) -> None:
        cluster, host = self.place
        old, new = _health(before), _health(now)
        event = EndpointHealthChanged(time.monotonic(), cluster.name, host.address, old, new, reason)
        self._around.runtime.turn(event)

    def _bring_back(self, cluster: ClusterPlan, host: Host) -> None:
        """A healthy check outweighs what the calls before it made of the endpoint."""
        if self.cell.ejected:
            checked_healthy(self._around.runtime, cluster, self.cell, time.monotonic())
        if self.cell.out_of_reach and cluster.reach is not None:
            cluster.reach.reached(cluster, host)

    def _count(self, stat: str) -> None:
        self.place[0].stats[f"health_check.{stat}"].add()


def _health(flags: ActiveHealth) -> EndpointHealth:
    if flags.failed:
        return "unhealthy"
    return "degraded" if flags.degraded else "healthy"
