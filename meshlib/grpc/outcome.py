"""What an attempt's end says: from a gRPC status to an Outcome.

grpcio gives a status for everything, and tells nobody but the reader of its details who made it. A connection that
was refused and a server that says UNAVAILABLE look alike but for these words (grpcio 1.85, `enable_retries` either way;
tests/e2e/grpc/test_grpc_client_outcomes.py fails when they change):

    what happened                                 code                details
    nothing listens, handshake failed             UNAVAILABLE         failed to connect to all addresses; last error: ..
                                                                      (then the address: a server that passes on what
                                                                      happened behind it names another one)
    the endpoint's name has no address            UNAVAILABLE         errors resolving <target>: ...
    connection closed or reset under the call     UNAVAILABLE         Stream removed (Socket closed | recvmsg:... )
    GOAWAY, and the call was not processed        UNAVAILABLE         Stream removed (GOAWAY received; ...)
    GOAWAY, and then the connection went          UNAVAILABLE         Stream removed (Socket closed (GOAWAY ...))
    RST_STREAM n (7 is REFUSED_STREAM)            by n, see gRPC's    Stream removed (RST_STREAM (Received RST_STREAM
                                                  "HTTP2 transport")  with error code n))
    the peer did not answer pings                 UNAVAILABLE         Stream removed (ping timeout | keepalive ...)
    an answer that is not gRPC                    by HTTP status      Received http2 header with status: n
    the attempt's deadline                        DEADLINE_EXCEEDED   Deadline Exceeded, or that of a removed stream
    nothing was sent: metadata, message, plugin   various             the texts in _LOCAL

Everything else is a status of the server. One that words a status of its own exactly like the above, and sends no
trailing metadata with it, is taken for a broken connection: it counts against the endpoint all the same.
"""

from __future__ import annotations

import re
from typing import Any

from meshlib.grpc.metadata import received
from meshlib.grpc.tunnel.client import tunnel_in
from meshlib.model.endpoint import Address
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED = 0, 1, 2, 4
UNAVAILABLE = 14
_CONNECT = ("failed to connect to all addresses; last error: ", "errors resolving ")
_REMOVED = "Stream removed ("
_OUT_OF_TIME = ("Deadline Exceeded", "Stream removed (Deadline Exceeded)")
_WIRE = ("Socket closed", "recvmsg:", "sendmsg", "Connection reset", "Broken pipe", "GOAWAY received", "RST_STREAM")
_LOCAL = (
    "Exception serializing request!",
    "Exception deserializing response!",
    "Exception iterating requests!",
    "Invalid metadata",
    "Locally cancelled by application!",
    "Channel closed!",
    "CLIENT: Sent message larger than max",
    "CLIENT: Received message larger than max",
    "Getting metadata from plugin failed",
    "Established channel does not have a sufficient security level",
)
_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})$")
_REFUSED = re.compile(r"error code 7\b")


class AttemptError(Exception):
    """A failed attempt, in one line; `rpc_error` is what grpcio raised, when it raised something."""

    def __init__(self, code: int, details: str, rpc_error: Any = None) -> None:
        super().__init__(details)
        self.code = code
        self.rpc_error = rpc_error


def answered(headers: list[tuple[bytes, bytes]] | None, status: int = OK, response: Any = None) -> Outcome:
    """A status of the server."""
    return Outcome(200, headers, grpc_status=status, response=response)


def early_metadata(call: Any) -> Any:
    """The initial metadata of a call as far as they have come, None when they have not. `initial_metadata()` of the
    blocking API would wait for them, even on the very thread that brings them; so its state is looked at.
    """
    state = getattr(call, "_state", None)
    return call.initial_metadata() if state is None else state.initial_metadata


def debug_string(call: Any) -> str | None:
    """Grpcio's own words about a finished call. `debug_error_string()` of the blocking API waits for ever for those of
    a call that ended locally.
    """
    state = getattr(call, "_state", None)
    said = call.debug_error_string() if state is None else state.debug_error_string
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def failed(rpc_error: Any, address: Address | None, out_of_time: Failure | None) -> Outcome:
    """The outcome of an attempt that ended with an error. `rpc_error` has a status's methods (`grpc.Call`, or
    `grpc.aio.AioRpcError`); `out_of_time` is what it means when its time has run out, None when it has not.
    """
    code, details = int(rpc_error.code().value[0]), _of_the_endpoint(rpc_error.details() or "", address)
    error = AttemptError(code, details or rpc_error.code().name, rpc_error)
    trailing = rpc_error.trailing_metadata()
    if code == DEADLINE_EXCEEDED and (out_of_time is not None or details in _OUT_OF_TIME):
        return Outcome(failure=out_of_time or Failure.TIMEOUT, error=error)
    if not trailing:
        found = _of_the_wire(code, details, address)
        if found is not None:
            failure, sent = found
            status = None if failure is Failure.LOCAL else code  # the caller's own fault is retried for no reason
            return Outcome(failure=failure, request_sent=sent, grpc_status=status, error=error)
    http_status = _HTTP_STATUS.match(details)
    headers = received(early_metadata(rpc_error), trailing)
    return Outcome(
        int(http_status[1]) if http_status else 200, headers, grpc_status=code, response=rpc_error, error=error
    )


def single(outcome: Outcome) -> Outcome:
    """The outcome of an attempt whose response is one message. An error whose headers came first is the call's, however
    it ends: neither gRPC (A6) nor Envoy retries what has begun. It is judged by its status at the call's end.
    """
    if outcome.failure is None and early_metadata(outcome.response):
        outcome.grpc_status = GRPC_STATUS_PENDING
    return outcome


def _of_the_endpoint(details: str, address: Address | None) -> str:
    """The details with the endpoint's address where grpcio names the tunnel to it, and with what the tunnel knows."""
    tunnel = tunnel_in(details, address) if address is not None else None
    if tunnel is None or address is None:
        return details
    told = details.replace(tunnel.target, address.path or f"{address.host}:{address.port}")
    return f"{told}: {tunnel.failure}" if tunnel.failure else told


def _of_the_wire(code: int, details: str, address: Address | None) -> tuple[Failure, bool] | None:
    """(Failure, whether the request left) of a status that grpcio made itself; None for a server's own."""
    if details.startswith(_LOCAL):
        return Failure.LOCAL, False
    if code == UNAVAILABLE and details.startswith(_CONNECT) and _names(address, details):
        late = "timed out" in details or "timeout" in details or "deadline" in details.lower()
        return (Failure.CONNECT_TIMEOUT if late else Failure.CONNECT), False
    if details.startswith(_REMOVED):
        return _of_the_stream(details[len(_REMOVED) :])
    return _of_the_stream(details) if code == UNAVAILABLE and details.startswith(_WIRE) else None


def _of_the_stream(reason: str) -> tuple[Failure, bool]:
    if reason.startswith("GOAWAY received") or (reason.startswith("RST_STREAM") and _REFUSED.search(reason)):
        return Failure.REFUSED_STREAM, True
    return Failure.RESET, True


def _names(address: Address | None, details: str) -> bool:
    """Whether a connection error is about this endpoint. A name was resolved to addresses: then its port must do."""
    return address is not None and (address.path or f":{address.port}") in details
