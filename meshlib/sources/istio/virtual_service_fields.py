"""VirtualService: its fields (`networking.istio.io/v1`)."""

from __future__ import annotations

from dataclasses import replace

from meshlib.sources.istio.faults import GRPC_STATUSES
from meshlib.sources.istio.fields import DURATION, FLAG, PERCENT, PORT, TEXT, Fields, ListOf, MapOf, OneOf, Scalar

_STRING_MATCH = Fields(
    "StringMatch", {"exact": TEXT, "prefix": TEXT, "regex": TEXT}, exclusive=("exact", "prefix", "regex")
)
_ORIGIN = replace(_STRING_MATCH, demanded=True)
HTTP_MATCH = Fields(
    "HTTPMatchRequest",
    {
        "name": TEXT,
        "uri": _STRING_MATCH,
        "scheme": _STRING_MATCH,
        "method": _STRING_MATCH,
        "authority": _STRING_MATCH,
        "headers": MapOf(_STRING_MATCH),
        "withoutHeaders": MapOf(_STRING_MATCH),
        "queryParams": MapOf(_STRING_MATCH),
        "ignoreUriCase": FLAG,
        "port": PORT,
        "gateways": ListOf(TEXT),
        "sourceLabels": MapOf(TEXT),
        "sourceNamespace": TEXT,
    },
    ignored=("statPrefix",),
)
_OPERATIONS = Fields("HeaderOperations", {"set": MapOf(TEXT), "add": MapOf(TEXT), "remove": ListOf(TEXT)})
_HEADERS = Fields("Headers", {"request": _OPERATIONS, "response": _OPERATIONS})
_DESTINATION = Fields(
    "Destination",
    {"host": TEXT, "subset": TEXT, "port": Fields("PortSelector", {"number": PORT}, required=("number",))},
    required=("host",),
)
_ROUTE = Fields(
    "HTTPRouteDestination",
    {"destination": _DESTINATION, "weight": Scalar("whole", 0, 2**31 - 1), "headers": _HEADERS},
    required=("destination",),
)
_REDIRECT = Fields(
    "HTTPRedirect",
    {
        "uri": TEXT,
        "prefixRewrite": TEXT,
        "authority": TEXT,
        "port": PORT,
        "derivePort": OneOf(("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")),
        "scheme": TEXT,
        "redirectCode": Scalar("whole", 0, 599),
    },
    exclusive=("port", "derivePort"),
)
_DIRECT_RESPONSE = Fields(
    "HTTPDirectResponse",
    {
        "status": Scalar("whole", 200, 599),
        "body": Fields("HTTPBody", {"string": TEXT, "bytes": TEXT}, exclusive=("string", "bytes")),
    },
    required=("status",),
)
_REWRITE = Fields(
    "HTTPRewrite",
    {
        "uri": TEXT,
        "authority": TEXT,
        "uriRegexRewrite": Fields("RegexRewrite", {"match": TEXT, "rewrite": TEXT}, required=("match",)),
    },
    exclusive=("uri", "uriRegexRewrite"),
)
_RETRIES = Fields(
    "HTTPRetry",
    {
        "attempts": Scalar("whole", 0, 2**31 - 1),
        "perTryTimeout": DURATION,
        "retryOn": TEXT,
        "retryIgnorePreviousHosts": FLAG,
        "retryRemoteLocalities": FLAG,
        "backoff": DURATION,
    },
)
_PERCENT = Fields("Percent", {"value": PERCENT})
_MIRROR = Fields("HTTPMirrorPolicy", {"destination": _DESTINATION, "percentage": _PERCENT}, required=("destination",))
_CORS = Fields(
    "CorsPolicy",
    {
        "allowOrigins": ListOf(_ORIGIN),
        "allowOrigin": ListOf(TEXT),
        "allowMethods": ListOf(TEXT),
        "allowHeaders": ListOf(TEXT),
        "exposeHeaders": ListOf(TEXT),
        "maxAge": DURATION,
        "allowCredentials": FLAG,
        "unmatchedPreflights": OneOf(("UNSPECIFIED", "FORWARD", "IGNORE")),
    },
)
_FAULT = Fields(
    "HTTPFaultInjection",
    {
        "delay": Fields(
            "Delay",
            {"fixedDelay": DURATION, "percentage": _PERCENT, "percent": Scalar("whole", 0, 100)},
            not_applied={"exponentialDelay": "Istio delays by a fixed time only"},
        ),
        "abort": Fields(
            "Abort",
            {"httpStatus": Scalar("whole", 200, 599), "grpcStatus": OneOf(GRPC_STATUSES), "percentage": _PERCENT},
            exclusive=("httpStatus", "grpcStatus"),
            not_applied={"http2Error": "Istio aborts with a status of HTTP or gRPC only"},
        ),
    },
)
_DELEGATE = Fields("Delegate", {"name": TEXT, "namespace": TEXT}, required=("name",))
_HTTP = Fields(
    "HTTPRoute",
    {
        "name": TEXT,
        "match": ListOf(HTTP_MATCH),
        "route": ListOf(_ROUTE),
        "redirect": _REDIRECT,
        "directResponse": _DIRECT_RESPONSE,
        "rewrite": _REWRITE,
        "timeout": DURATION,
        "retries": _RETRIES,
        "headers": _HEADERS,
        "delegate": _DELEGATE,
        "mirror": _DESTINATION,
        "mirrors": ListOf(_MIRROR),
        "mirrorPercentage": _PERCENT,
        "mirrorPercent": Scalar("whole", 0, 100),
        "corsPolicy": _CORS,
        "fault": _FAULT,
    },
    exclusive=("route", "redirect", "directResponse"),
)
SPEC = Fields(
    "VirtualService",
    {"hosts": ListOf(TEXT), "gateways": ListOf(TEXT), "exportTo": ListOf(TEXT), "http": ListOf(_HTTP)},
    not_applied={"tls": "only HTTP is routed", "tcp": "only HTTP is routed"},
)
