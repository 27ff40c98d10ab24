"""What both pools share about opening a connection: which limit comes first, who is told, what failures are called."""

from __future__ import annotations

import ssl
from typing import Any, Self

from meshlib.http.wire.types import Address, FailureKind, Timeouts, Trace, WireError


class Untold:
    """A step of an exchange nobody wants to hear of."""

    return_value: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None


def connecting(trace: Trace | None, address: Address, timeouts: Timeouts) -> Any:
    """The step of opening a connection, TLS included, under the name httpcore gives it."""
    if trace is None:
        return Untold()
    if address.path:
        return trace.step("connection.connect_unix_socket", path=address.path, timeout=timeouts.connect)
    return trace.step("connection.connect_tcp", host=address.host, port=address.port, timeout=timeouts.connect)


def earliest(
    now: float, deadline: float | None, timeout: float | None, kind: FailureKind
) -> tuple[float | None, FailureKind]:
    """The first of a stage's timeout (seconds from now) and the deadline (absolute), and which of the two it is."""
    if timeout is None:
        return deadline, FailureKind.DEADLINE
    limit = now + timeout
    if deadline is not None and deadline <= limit:
        return deadline, FailureKind.DEADLINE
    return limit, kind


def check_name(peer: str, server_hostname: str | None) -> None:
    """Refuse what cannot be asked for in TLS (a label of 64 letters) before anything is connected: the handshake would
    fail by a UnicodeError and leave its socket open.
    """
    try:
        (server_hostname or "").encode("idna")
    except UnicodeError as error:
        raise WireError(FailureKind.TLS_FAILURE, f"{peer}: TLS server name {server_hostname!r}: {error}") from error


def connect_error(peer: str, error: OSError | ValueError) -> WireError:
    """The reason a connection could not be opened; a certificate that does not match is TLS's fault.

    A ValueError is a name that cannot be one: a label too long to be looked up, or to be asked for in TLS.
    """
    if isinstance(error, ssl.SSLError):
        return WireError(FailureKind.TLS_FAILURE, f"{peer}: TLS handshake: {error}")
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return WireError(FailureKind.CONNECT_FAILURE, f"{peer}: connect: {why}")
