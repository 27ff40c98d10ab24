"""DestinationRule → the traffic policy of each port and subset of a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshlib.sources.istio.destination_rule_fields import BLOCKS


@dataclass(frozen=True, slots=True)
class Subset:
    """A subset of a host: the endpoints that carry the labels. `passes_through`: its policy for all ports says so."""

    name: str
    labels: dict[str, str]
    passes_through: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What the DestinationRules of one namespace say of a host or a wildcard. `export_to` is empty where nothing is
    said, which is everybody; `selector` are the labels of the callers it is for, None for all.
    """

    host: str
    namespace: str
    spec: dict[str, Any]
    export_to: frozenset[str] = frozenset()
    selector: tuple[tuple[str, str], ...] | None = None

    @property
    def subsets(self) -> tuple[Subset, ...]:
        """Its subsets, in order."""
        return tuple(
            Subset(s["name"], dict(s.get("labels") or {}), _simple(s.get("trafficPolicy") or {}) == "PASSTHROUGH")
            for s in self.spec.get("subsets") or ()
        )

    def policy(self, port: int, subset: str = "") -> dict[str, Any]:
        """The blocks in force for a port. Port-level settings replace the destination's whole policy, a field they
        leave out falls back to its default; a subset's blocks then replace those of the destination one by one.
        """
        base, _ = _for_port(self._destination(), port)
        for entry in self.spec.get("subsets") or ():
            if entry["name"] == subset and subset:
                own, has_port_level = _for_port(entry.get("trafficPolicy") or {}, port)
                return _merge(base, own, whole=has_port_level)
        return base

    def consistent_hash(self, port: int | None, subset: str = "") -> dict[str, Any] | None:
        """What requests are hashed by: of the subset before the destination, of the port before all ports.

        `port` is None for a destination that names none: port-level settings then do not count. Unlike the policy of
        a cluster, a port without a hash of its own has the destination's (istiod: `HashForHTTPDestination`).
        """
        policies = [self._destination()]
        policies += [s.get("trafficPolicy") or {} for s in self.spec.get("subsets") or () if s["name"] == subset]
        for policy in reversed(policies):
            own, has_port_level = _for_port(policy, port)
            found = _hash_of(own) if has_port_level else None
            if found := found or _hash_of(policy):
                return found
        return None

    def tls_mode(self, port: int, subset: str = "") -> str | None:
        """The TLS that workloads are known by, None where nothing is said: of the subset before the destination, of the
        port before all ports. Unlike the policy of a cluster, a port without TLS of its own has the destination's
        (istiod: `mtls_checker.go`).
        """
        policies = [self._destination()]
        policies += [s.get("trafficPolicy") or {} for s in self.spec.get("subsets") or () if s["name"] == subset]
        for policy in reversed(policies):
            own, _ = _for_port(policy, port)
            tls = own.get("tls") or policy.get("tls")
            if tls is not None:
                return str(tls.get("mode", "DISABLE"))
        return None

    def _destination(self) -> dict[str, Any]:
        return self.spec.get("trafficPolicy") or {}


def _simple(policy: dict[str, Any]) -> str:
    return str((policy.get("loadBalancer") or {}).get("simple") or "")


def _hash_of(policy: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (policy.get("loadBalancer") or {}).get("consistentHash")
    return found


def _for_port(policy: dict[str, Any], port: int | None) -> tuple[dict[str, Any], bool]:
    for settings in policy.get("portLevelSettings") or ():
        if settings["port"].get("number") == port:
            return {key: value for key, value in settings.items() if key != "port" and value is not None}, True
    return {key: value for key, value in policy.items() if key != "portLevelSettings" and value is not None}, False


def _merge(base: dict[str, Any], own: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    kept = {key: value for key, value in base.items() if not (whole and key in BLOCKS)}
    return {**kept, **own}
