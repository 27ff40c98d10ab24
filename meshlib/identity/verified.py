"""What TLS has found out about the other end of a connection, kept on the TLS object itself.

The check runs inside the handshake of both kinds of Python's TLS objects (asyncio's and a socket's), so no connection
is ever used unchecked, whoever opened it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meshlib.security.peer import Peer


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """The peer of one connection. `anchor` is the authority (DER) its chain ended in when it was verified; both are
    empty for a peer that showed no certificate.
    """

    peer: Peer | None = None
    certificate: bytes = field(default=b"", repr=False)
    anchor: bytes = field(default=b"", repr=False)


class CheckingContext(ssl.SSLContext):
    """A context whose handshakes succeed only if `check(tls_object)` does not raise; what it returns is kept as the
    object's `verified`.
    """

    check: Callable[[Any], VerifiedPeer | None]
    owner: Any = None  # whoever made it, for those who only have a connection

    @classmethod
    def make(cls, protocol: int, check: Callable[[Any], VerifiedPeer | None]) -> CheckingContext:
        """A context for the protocol, with the check in place."""
        context = cls(protocol)
        context.sslobject_class = _CheckedObject
        context.sslsocket_class = _CheckedSocket
        context.check = check
        return context


class _CheckedObject(ssl.SSLObject):
    verified: VerifiedPeer | None = None

    def do_handshake(self) -> None:
        super().do_handshake()
        if isinstance(self.context, CheckingContext):
            self.verified = self.context.check(self)


class _CheckedSocket(ssl.SSLSocket):
    verified: VerifiedPeer | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        if isinstance(self.context, CheckingContext):
            self.verified = self.context.check(self)


def verified_chain(tls: Any) -> tuple[bytes, ...]:
    """The chain as it was verified, leaf first, anchor last, in DER; empty when there is none (a resumed session)."""
    # Public since Python 3.13; the object inside has had it since 3.10.
    get = getattr(tls, "get_verified_chain", None) or tls._sslobj.get_verified_chain
    return tuple(_der(certificate) for certificate in get() or ())


def _der(certificate: Any) -> bytes:
    der: bytes = certificate if isinstance(certificate, bytes) else certificate.public_bytes(_DER)
    return der


_DER = 2  # _ssl.ENCODING_DER
