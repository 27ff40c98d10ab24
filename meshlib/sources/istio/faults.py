"""`fault` → the route's configuration of the fault filter (istiod: `TranslateFault`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.sources.istio.fields import envoy_duration

Json = dict[str, Any]

FILTER = "envoy.filters.http.fault"
_TYPE = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
HTTP_FILTER: Json = {"name": FILTER, "typed_config": {"@type": _TYPE}}
GRPC_STATUSES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""By their numbers."""


def fault_config(fault: Mapping[str, Any]) -> Json:
    """The `typed_per_filter_config` of a route with this fault. A delay or an abort without a percentage is one of no
    request; without a duration or a status there is none.
    """
    config: Json = {"@type": _TYPE}
    if (delay := fault.get("delay")) is not None and delay.get("fixedDelay"):
        share = _share(delay) or {"numerator": delay.get("percent") or 0}
        config["delay"] = {"fixed_delay": envoy_duration(delay["fixedDelay"]), "percentage": share}
    if (abort := fault.get("abort")) is not None:
        if abort.get("httpStatus") is not None:
            config["abort"] = {"http_status": abort["httpStatus"], "percentage": _share(abort) or {}}
        elif abort.get("grpcStatus") is not None:
            status = GRPC_STATUSES.index(abort["grpcStatus"])
            config["abort"] = {"grpc_status": status, "percentage": _share(abort) or {}}
    return {FILTER: config}


def _share(given: Mapping[str, Any]) -> Json | None:
    percentage = given.get("percentage")
    if percentage is None:
        return None
    return {"numerator": int((percentage.get("value") or 0) * 10_000), "denominator": "MILLION"}
