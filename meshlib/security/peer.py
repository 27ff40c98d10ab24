"""Peer: who is at the other end of a connection, as its verified certificate says; and which peers are welcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshlib.security.certificate import Certificate, CertificateError
from meshlib.security.spiffe import SpiffeId, SpiffeIdError, SpiffePattern, sole_id, trust_domain

__all__ = ["Peer", "PeerError", "PeerRules"]


class PeerError(Exception):
    """A peer is not who it must be; the message says why. It is meant for the log, not for the peer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller known by mutual TLS. `expires_at` in Unix seconds, `serial` in hexadecimal."""

    spiffe_id: SpiffeId
    serial: str
    expires_at: float

    @property
    def trust_domain(self) -> str:
        """The trust domain of the SPIFFE ID."""
        return self.spiffe_id.trust_domain

    @classmethod
    def of(cls, der: bytes) -> Peer:
        """The peer of a leaf certificate whose chain was verified (X.509-SVID, sections 2 and 5.2): named by its only
        URI subjectAltName, never by its subject, and no authority itself. Raises PeerError.
        """
        try:
            leaf = Certificate.parse(der)
            if leaf.authority:
                raise PeerError("the certificate is an authority's: those sign, and do not speak for a workload")
            return cls(sole_id(leaf.uris), leaf.serial, leaf.not_after)
        except (CertificateError, SpiffeIdError) as error:
            raise PeerError(str(error)) from None


@dataclass(frozen=True, slots=True)
class PeerRules:
    """Which verified peers may connect: those of these trust domains (None: of any the bundle vouches for), and, unless
    `allow` is empty, only those a pattern names.
    """

    trust_domains: frozenset[str] | None = None
    allow: tuple[SpiffePattern, ...] = ()

    @classmethod
    def of(cls, trust_domains: Iterable[str] | None, allow: Iterable[str]) -> PeerRules:
        """From texts; raises SpiffeIdError."""
        domains = None if trust_domains is None else frozenset(trust_domain(name) for name in trust_domains)
        return cls(domains, tuple(SpiffePattern.parse(text) for text in allow))

    def check(self, peer: Peer) -> None:
        """Raise PeerError unless the peer may connect."""
        if self.trust_domains is not None and peer.trust_domain not in self.trust_domains:
            raise PeerError(f"{peer.spiffe_id} is of another trust domain than {', '.join(sorted(self.trust_domains))}")
        if self.allow and not any(pattern.matches(peer.spiffe_id) for pattern in self.allow):
            raise PeerError(f"{peer.spiffe_id} is not among those allowed")
