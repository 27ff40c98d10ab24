"""DestinationRule → the traffic policy of each port and subset of a host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.istio.fields import DURATION, FLAG, NUMBER, PORT, TEXT, WHOLE, Fields, ListOf, MapOf, OneOf, Scalar
from meshlib.sources.istio.names import PROXY_NAMESPACE, ROOT_NAMESPACE, matches, resolve

_NOT_YET = "not applied in this version"
_COOKIE = Fields(
    "HTTPCookie",
    {"name": TEXT, "path": TEXT, "ttl": DURATION},
    required=("name",),
    not_applied={"attributes": _NOT_YET},
)
_CONSISTENT_HASH = Fields(
    "ConsistentHashLB",
    {
        "httpHeaderName": TEXT,
        "httpCookie": _COOKIE,
        "useSourceIp": FLAG,
        "httpQueryParameterName": TEXT,
        "minimumRingSize": WHOLE,
        "ringHash": Fields("RingHash", {"minimumRingSize": WHOLE}),
        "maglev": Fields("MagLev", {"tableSize": WHOLE}),
    },
    exclusive=("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
)
_LOAD_BALANCER = Fields(
    "LoadBalancerSettings",
    {
        "simple": OneOf(("UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH")),
        "consistentHash": _CONSISTENT_HASH,
    },
    exclusive=("simple", "consistentHash"),
    not_applied={
        "localityLbSetting": "localities are not preferred from files",
        "zoneAwareLbSetting": _NOT_YET,
        "warmup": _NOT_YET,
        "warmupDurationSecs": _NOT_YET,
    },
)
_CONNECTION_POOL = Fields(
    "ConnectionPoolSettings",
    {
        "tcp": Fields(
            "TCPSettings",
            {
                "maxConnections": WHOLE,
                "connectTimeout": DURATION,
                "idleTimeout": DURATION,
                "maxConnectionDuration": DURATION,
            },
            not_applied={"tcpKeepalive": _NOT_YET},
        ),
        "http": Fields(
            "HTTPSettings",
            {
                "http1MaxPendingRequests": WHOLE,
                "http2MaxRequests": WHOLE,
                "maxRequestsPerConnection": WHOLE,
                "maxRetries": WHOLE,
                "idleTimeout": DURATION,
                "h2UpgradePolicy": OneOf(("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")),
                "maxConcurrentStreams": WHOLE,
            },
            not_applied={"useClientProtocol": _NOT_YET, "http2KeepAlive": _NOT_YET},
        ),
    },
)
_PERCENT = Scalar("whole", 0, 100)
_OUTLIER_DETECTION = Fields(
    "OutlierDetection",
    {
        "consecutive5xxErrors": WHOLE,
        "consecutiveGatewayErrors": WHOLE,
        "consecutiveLocalOriginFailures": WHOLE,
        "splitExternalLocalOriginErrors": FLAG,
        "interval": DURATION,
        "baseEjectionTime": DURATION,
        "maxEjectionPercent": _PERCENT,
        "minHealthPercent": _PERCENT,
    },
    not_applied={
        "consecutiveErrors": "removed from Istio; use consecutive5xxErrors or consecutiveGatewayErrors",
        "outlierDetectionHttpErrorCodes": _NOT_YET,
    },
)
_TLS = Fields(
    "ClientTLSSettings",
    {
        "mode": OneOf(("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL")),
        "clientCertificate": TEXT,
        "privateKey": TEXT,
        "caCertificates": TEXT,
        "sni": TEXT,
        "subjectAltNames": ListOf(TEXT),
    },
    not_applied={
        "credentialName": "secrets are not read from files; name certificate files",
        "insecureSkipVerify": _NOT_YET,
        "caCrl": _NOT_YET,
    },
)
_BLOCKS = {
    "loadBalancer": _LOAD_BALANCER,
    "connectionPool": _CONNECTION_POOL,
    "outlierDetection": _OUTLIER_DETECTION,
    "tls": _TLS,
}
_PORT_POLICY = Fields("PortTrafficPolicy", {"port": Fields("PortSelector", {"number": PORT}), **_BLOCKS}, ("port",))
_RETRY_BUDGET = Fields(
    "RetryBudget", {"percent": NUMBER, "minRetryConcurrency": WHOLE}, not_applied={"budgetInterval": _NOT_YET}
)
TRAFFIC_POLICY = Fields(
    "TrafficPolicy",
    {**_BLOCKS, "portLevelSettings": ListOf(_PORT_POLICY), "retryBudget": _RETRY_BUDGET},
    not_applied={"tunnel": _NOT_YET, "proxyProtocol": _NOT_YET},
)
SPEC = Fields(
    "DestinationRule",
    {
        "host": TEXT,
        "exportTo": ListOf(TEXT),
        "trafficPolicy": TRAFFIC_POLICY,
        "subsets": ListOf(
            Fields("Subset", {"name": TEXT, "labels": MapOf(TEXT), "trafficPolicy": TRAFFIC_POLICY}, ("name",))
        ),
    },
    required=("host",),
    not_applied={"workloadSelector": "callers have no labels here; the rule holds for all"},
)


@dataclass(frozen=True, slots=True)
class Subset:
    """A subset of a host: the endpoints that carry the labels. `passes_through`: its policy for all ports says so."""

    name: str
    labels: dict[str, str]
    passes_through: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What the DestinationRules of one namespace say of a host or a wildcard."""

    host: str
    namespace: str
    spec: dict[str, Any]

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

    def _destination(self) -> dict[str, Any]:
        return self.spec.get("trafficPolicy") or {}


def rules_of(documents: Iterable[IstioDocument]) -> tuple[Rule, ...]:
    """The rules, those of one namespace for the same host put together: the first traffic policy, all subsets."""
    found: dict[tuple[str, str], Rule] = {}
    for document in documents:
        rule = Rule(resolve(document.spec["host"], document.namespace), document.namespace, document.spec)
        key = (rule.namespace, rule.host)
        found[key] = _joined(found[key], rule) if key in found else rule
    return tuple(found.values())


def find_rule(rules: Iterable[Rule], host: str, namespace: str) -> Rule | None:
    """The rule for a host of a service in `namespace`: one of the caller's namespace, then the service's, then the
    root's; of that very host before the longest wildcard that covers it.
    """
    covering = [rule for rule in rules if matches(rule.host, host)]
    for place in (PROXY_NAMESPACE, namespace, ROOT_NAMESPACE):
        found = [rule for rule in covering if rule.namespace == place]
        if found:
            return max(found, key=lambda rule: (rule.host == host, len(rule.host)))
    return None


def _joined(first: Rule, second: Rule) -> Rule:
    names = {subset["name"] for subset in first.spec.get("subsets") or ()}
    more = [subset for subset in second.spec.get("subsets") or () if subset["name"] not in names]
    policy = first.spec.get("trafficPolicy") or second.spec.get("trafficPolicy")
    subsets = [*(first.spec.get("subsets") or ()), *more]
    return Rule(first.host, first.namespace, {**first.spec, "trafficPolicy": policy, "subsets": subsets})


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
    kept = {key: value for key, value in base.items() if not (whole and key in _BLOCKS)}
    return {**kept, **own}
