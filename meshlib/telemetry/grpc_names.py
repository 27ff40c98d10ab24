"""What gRPC calls are to telemetry: their names, and their statuses in words."""

from __future__ import annotations

from meshlib.model.request import RequestHead

STATUS_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
# Of these a server span says they are errors (OpenTelemetry's rpc conventions); a client's are all but OK.
SERVER_ERRORS = frozenset((2, 4, 12, 13, 14, 15))


def status_name(code: int) -> str:
    """`UNAVAILABLE` for 14; the number where it has no name."""
    return STATUS_NAMES[code] if 0 <= code < len(STATUS_NAMES) else str(code)


def is_grpc(head: RequestHead) -> bool:
    """Whether a request is a gRPC call."""
    if head.method != "POST":
        return False
    for name, value in head.headers:
        if len(name) == 12 and name.lower() == b"content-type":
            return value.startswith(b"application/grpc")
    return False


def service_and_method(path: str) -> tuple[str, str]:
    """(`pkg.Service`, `Method`) of `/pkg.Service/Method`."""
    service, _, method = path.lstrip("/").rpartition("/")
    return service, method


def rpc_name(head: RequestHead) -> str:
    """`pkg.Service/Method`: the name of a call's span."""
    return head.path_only.lstrip("/") or "grpc"
