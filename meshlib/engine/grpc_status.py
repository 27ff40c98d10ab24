"""The gRPC status a call ends with where no server said one: what Envoy answers a gRPC call with by itself."""

from __future__ import annotations

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.telemetry.grpc_names import is_grpc

CANCELLED, UNKNOWN, UNAVAILABLE = 1, 2, 14
BY_FLAG = {ResponseFlag.UT: 4, ResponseFlag.SI: 4, ResponseFlag.DC: CANCELLED}
"""Where it is not UNAVAILABLE."""
BY_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""`Grpc::Utility::httpToGrpcStatus`: what an HTTP status of the mesh's own is to a gRPC client; else UNKNOWN."""


def failed(head: RequestHead, flag: ResponseFlag, outcome: Outcome | None = None, http_status: int = 0) -> int | None:
    """Of a call that failed: the last attempt's, else by the flag; `http_status` is what the route says a missing
    cluster is (NC). None for a call that is not gRPC's.
    """
    if flag is ResponseFlag.NC and http_status and is_grpc(head):
        return BY_HTTP.get(http_status, UNKNOWN)
    if outcome is not None and outcome.grpc_status is not None and outcome.grpc_status >= 0:
        return outcome.grpc_status
    return BY_FLAG.get(flag, UNAVAILABLE) if is_grpc(head) else None


def answered(head: RequestHead, status: int, grpc_status: int | None) -> int | None:
    """Of a call that the mesh answered itself, with the status of an HTTP response or with one of gRPC's."""
    if not is_grpc(head):
        return None
    return BY_HTTP.get(status, UNKNOWN) if grpc_status is None else grpc_status


def ended(begun_with: int, ended_with: int | None, flag: ResponseFlag | None) -> int:
    """Of a call that got a response: its own or its trailers'; without either it broke, or its caller left it."""
    if begun_with >= 0:
        return begun_with
    if ended_with is not None:
        return ended_with
    return CANCELLED if flag is None else BY_FLAG.get(flag, UNAVAILABLE)
