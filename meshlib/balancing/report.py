"""What a balancer would do, as values for `explain` and the admin pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshlib.balancing.base import Availability, Host
from meshlib.balancing.priority import PriorityLoad
from meshlib.balancing.view import View
from meshlib.model.endpoint import HealthStatus, Locality
from meshlib.model.lb import LbPolicy, UnsupportedLbPolicy


@dataclass(frozen=True, slots=True)
class HostReport:
    """One endpoint. `availability` is what balancing makes of `health`, `ejected`, `out_of_reach` and `health_flags`,
    which active health checks have set (Envoy's words); `active` counts requests.
    """

    address: str
    locality: Locality
    weight: int
    health: HealthStatus
    ejected: bool
    out_of_reach: bool
    availability: Availability
    active: int
    health_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PriorityReport:
    """One priority: percent of the load for its healthy and degraded hosts; in panic all hosts count as healthy."""

    priority: int
    healthy_load: int
    degraded_load: int
    panic: bool
    hosts: tuple[HostReport, ...]


@dataclass(frozen=True, slots=True)
class BalancerReport:
    """The policy by its name in the model, and the priorities; none when no endpoint may be used."""

    policy: str
    priorities: tuple[PriorityReport, ...]


def report(policy: LbPolicy, view: View | None, hosts: Sequence[Host]) -> BalancerReport:
    """The report on a view over these hosts."""
    name = "RoundRobin" if isinstance(policy, UnsupportedLbPolicy) else type(policy).__name__
    loads = view.loads if view is not None else ()
    return BalancerReport(name, tuple(_priority(number, load, hosts) for number, load in enumerate(loads)))


def _priority(number: int, load: PriorityLoad, hosts: Sequence[Host]) -> PriorityReport:
    members = tuple(_host(host) for host in hosts if host.priority == number)
    return PriorityReport(number, load.healthy, load.degraded, load.panic, members)


def _host(host: Host) -> HostReport:
    cell = host.cell
    return HostReport(
        host.address,
        host.locality,
        host.weight,
        host.health,
        cell.ejected,
        cell.out_of_reach,
        host.availability,
        cell.active,
        cell.probed.flags() if cell.probed is not None else (),
    )
