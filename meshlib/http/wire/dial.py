"""What the two pools share about opening a connection: which limit comes first, and what a failure is called."""

from __future__ import annotations

import ssl

from meshlib.http.wire.types import FailureKind, WireError


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


def connect_error(peer: str, error: OSError) -> WireError:
    """The reason a connection could not be opened; a certificate that does not match is TLS's fault."""
    if isinstance(error, ssl.SSLError):
        return WireError(FailureKind.TLS_FAILURE, f"{peer}: TLS handshake: {error}")
    why = error.strerror or str(error) or type(error).__name__
    return WireError(FailureKind.CONNECT_FAILURE, f"{peer}: connect: {why}")
