"""Active health checks: what the results of one check mean for one endpoint, and when the next is due.

After `source/extensions/health_checkers/common/health_checker_base_impl.cc`, rule by rule. The very first result counts
at once, whatever the thresholds. After that `healthy_threshold` passes in a row bring an endpoint back, and
`unhealthy_threshold` failures in a row take it out; a response that says plainly that something is wrong (any failure
but those of the network and retriable statuses) does so at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from meshlib.model.health import HealthCheck
from meshlib.policy.rng import Rng
from meshlib.state.cells import ActiveHealth

UNCHECKED = ActiveHealth(failed=True)
"""Of an endpoint that has joined a cluster with checks, and has not passed them yet."""
_SHORTEST = 0.001  # seconds between two checks, whatever the configuration says; Envoy's too


class FailureKind(Enum):
    """Why a check failed: by what was answered, for want of an answer, or because a response to a call said so."""

    ACTIVE = "active"
    NETWORK = "network"
    NETWORK_TIMEOUT = "network timeout"
    PASSIVE = "passive"

    @property
    def network(self) -> bool:
        """Whether nothing was answered."""
        return self in (FailureKind.NETWORK, FailureKind.NETWORK_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: passed, or failed of a `kind` (else None). `reason` is for people.

    `retriable` failures count towards the threshold; `excluded`: the endpoint asked to be taken out of the reckoning.
    `verified`: the answering service's name was looked at.
    """

    kind: FailureKind | None = None
    reason: str = ""
    degraded: bool = False
    retriable: bool = False
    excluded: bool = False
    verified: bool = False


PASSED = Finding()
Transition = Literal["unchanged", "pending", "changed"]
"""What a result did: nothing, a step towards a threshold, or a change of the flags."""


class HealthMonitor:
    """One check of one endpoint. `flags` are as the check has it. Not for several threads at once."""

    __slots__ = ("_failures", "_first", "_passes", "config", "flags")

    def __init__(self, config: HealthCheck, flags: ActiveHealth = UNCHECKED) -> None:
        self.config = config
        self.flags = flags
        self._first = True
        self._passes = 0
        self._failures = 0

    def take(self, finding: Finding) -> Transition:
        """A result, of a check or (PASSIVE) of a response to a call."""
        transition = self._passed(finding) if finding.kind is None else self._failed(finding, finding.kind)
        if self.flags.pending:
            self.flags = self.flags._replace(pending=False)
            transition = "changed"
        self._first = False
        return transition

    def next_check(self, passed: bool, transition: Transition, traffic: bool, rng: Rng) -> float:
        """Seconds until the next check after such a result. `traffic`: the cluster has ever been called."""
        return self.jittered(self._base(passed, transition == "pending", traffic), rng)

    def first_check(self, rng: Rng) -> float:
        """Seconds until the first check."""
        return self.config.initial_jitter * rng.random() if self.config.initial_jitter else 0.0

    def jittered(self, base: float, rng: Rng) -> float:
        """The interval with `interval_jitter_percent` of it, and `interval_jitter`, at most."""
        config = self.config
        spread = base * config.interval_jitter_percent / 100
        for jitter in (spread, config.interval_jitter):
            if jitter > 0:
                base += rng.random() * jitter
        return max(_SHORTEST, base)

    def _passed(self, finding: Finding) -> Transition:
        self._failures = 0
        transition: Transition = "unchanged"
        if self.flags.failed:
            self._passes += 1
            if self._first or self._passes >= self.config.healthy_threshold:
                self.flags = self.flags._replace(failed=False, timeout=False)
                self._passes = 0
                transition = "changed"
            else:
                transition = "pending"
        if not self.flags.failed and self.flags.excluded:
            self.flags = self.flags._replace(excluded=False)
        if finding.degraded != self.flags.degraded:
            self.flags = self.flags._replace(degraded=finding.degraded)
            transition = "changed" if transition == "unchanged" else transition
        return transition

    def _failed(self, finding: Finding, kind: FailureKind) -> Transition:
        self._passes = 0
        transition: Transition = "unchanged"
        failed = self.flags.failed
        if not failed:
            self._failures += 1
            plain = not kind.network and not finding.retriable
            failed = plain or self._failures >= self.config.unhealthy_threshold
            transition = "changed" if failed else "pending"
        timeout = failed and kind is FailureKind.NETWORK_TIMEOUT
        excluded = self.flags.excluded or finding.excluded
        self.flags = self.flags._replace(failed=failed, timeout=timeout, excluded=excluded)
        return transition

    def _base(self, passed: bool, pending: bool, traffic: bool) -> float:
        config = self.config
        if not traffic:
            slow = config.no_traffic_healthy_interval if passed and not pending else None
            return config.no_traffic_interval if slow is None else slow
        if passed:
            return _or(config.healthy_edge_interval if pending else None, config.interval)
        unhealthy = _or(config.unhealthy_interval, config.interval)
        return _or(config.unhealthy_edge_interval if pending else None, unhealthy)


def combined(flags: list[ActiveHealth]) -> ActiveHealth:
    """What several checks make of an endpoint: it must pass them all."""
    if len(flags) == 1:
        return flags[0]
    return ActiveHealth(*(any(each) for each in zip(*flags, strict=True)))


def contains(expected: tuple[bytes, ...], data: bytes) -> bool:
    """Whether all the parts are in the data, one behind the other."""
    at = 0
    for part in expected:
        found = data.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _or(given: float | None, default: float) -> float:
    return default if given is None else given
