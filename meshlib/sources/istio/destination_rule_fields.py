"""DestinationRule: its fields (`networking.istio.io/v1`)."""

from __future__ import annotations

from meshlib.sources.istio.fields import (
    DURATION,
    FLAG,
    NUMBER,
    PERCENT,
    PORT,
    TEXT,
    WHOLE,
    Fields,
    ListOf,
    MapOf,
    OneOf,
    Scalar,
)

_ATTRIBUTE = Fields("Attribute", {"name": TEXT, "value": TEXT}, required=("name",))
_COOKIE = Fields(
    "HTTPCookie",
    {"name": TEXT, "path": TEXT, "ttl": DURATION, "attributes": ListOf(_ATTRIBUTE)},
    required=("name",),
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
    partly={"useSourceIp": "a caller has no downstream connection: it never yields a hash"},
)
_FAILOVER = ListOf(Fields("Failover", {"from": TEXT, "to": TEXT}))
_LOCALITY = Fields(
    "LocalityLoadBalancerSetting",
    {
        "distribute": ListOf(Fields("Distribute", {"from": TEXT, "to": MapOf(Scalar("whole", 1, 100))})),
        "failover": _FAILOVER,
        "failoverPriority": ListOf(TEXT),
        "enabled": FLAG,
    },
    exclusive=("distribute", "failover"),
)
_ZONE_AWARE = Fields(
    "ZoneAwareLoadBalancerSetting",
    {"enabled": FLAG, "failover": _FAILOVER, "failoverPriority": ListOf(TEXT), "minClusterSize": WHOLE},
)
_WARMUP = Fields(
    "WarmupConfiguration",
    {"duration": DURATION, "minimumPercent": PERCENT, "aggression": NUMBER},
    required=("duration",),
)
_LOAD_BALANCER = Fields(
    "LoadBalancerSettings",
    {
        "simple": OneOf(("UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH")),
        "consistentHash": _CONSISTENT_HASH,
        "localityLbSetting": _LOCALITY,
        "zoneAwareLbSetting": _ZONE_AWARE,
        "warmup": _WARMUP,
        "warmupDurationSecs": DURATION,
    },
    exclusive=("simple", "consistentHash"),
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
            not_applied={"tcpKeepalive": "keepalive of TCP connections is the system's"},
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
                "useClientProtocol": FLAG,
            },
            partly={"maxConcurrentStreams": "as many streams are opened as the endpoint allows"},
            not_applied={"http2KeepAlive": "pings are sent as the HTTP/2 library of the door does"},
        ),
    },
)
_WHOLE_PERCENT = Scalar("whole", 0, 100)
_OUTLIER_DETECTION = Fields(
    "OutlierDetection",
    {
        "consecutive5xxErrors": WHOLE,
        "consecutiveGatewayErrors": WHOLE,
        "consecutiveLocalOriginFailures": WHOLE,
        "splitExternalLocalOriginErrors": FLAG,
        "interval": DURATION,
        "baseEjectionTime": DURATION,
        "maxEjectionPercent": _WHOLE_PERCENT,
        "minHealthPercent": _WHOLE_PERCENT,
        "outlierDetectionHttpErrorCodes": ListOf(WHOLE),
    },
    not_applied={
        "consecutiveErrors": "removed from Istio; use consecutive5xxErrors or consecutiveGatewayErrors",
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
        "insecureSkipVerify": FLAG,
        "caCrl": TEXT,
    },
    partly={"caCrl": "revocation lists are not checked: connections fail, never go on with less protection"},
    not_applied={"credentialName": "secrets are not read from files; name certificate files"},
)
BLOCKS = {
    "loadBalancer": _LOAD_BALANCER,
    "connectionPool": _CONNECTION_POOL,
    "outlierDetection": _OUTLIER_DETECTION,
    "tls": _TLS,
}
_PORT_POLICY = Fields("PortTrafficPolicy", {"port": Fields("PortSelector", {"number": PORT}), **BLOCKS}, ("port",))
_RETRY_BUDGET = Fields(
    "RetryBudget",
    {"percent": NUMBER, "minRetryConcurrency": WHOLE},
    not_applied={"budgetInterval": "the budget is of the requests that are active at the moment"},
)
TRAFFIC_POLICY = Fields(
    "TrafficPolicy",
    {**BLOCKS, "portLevelSettings": ListOf(_PORT_POLICY), "retryBudget": _RETRY_BUDGET},
    not_applied={
        "tunnel": "connections are not tunnelled: it is for TCP and TLS routes",
        "proxyProtocol": "connections begin with no PROXY protocol header",
    },
)
SPEC = Fields(
    "DestinationRule",
    {
        "host": TEXT,
        "exportTo": ListOf(TEXT),
        "workloadSelector": Fields("WorkloadSelector", {"matchLabels": MapOf(TEXT)}),
        "trafficPolicy": TRAFFIC_POLICY,
        "subsets": ListOf(
            Fields("Subset", {"name": TEXT, "labels": MapOf(TEXT), "trafficPolicy": TRAFFIC_POLICY}, ("name",))
        ),
    },
    required=("host",),
)
