"""ServerTls: the server's end of mutual TLS, following its identity without a restart and without a dropped call.

One context stands at the front, for as long as the server runs. In each handshake it steps aside for the newest one
(Python can swap the context of a handshake when the client has said hello). Trust changes with it, because:

- a context's authorities are never changed, a new bundle is a new context (an old one would only ever trust more);
- no tickets are issued: one would let in whoever was trusted when it was issued. (OpenSSL resumes sessions of TLS 1.2
  by their number all the same, which Python cannot turn off: such a peer is checked like any other, by the authority
  that vouched for its certificate before.)
- when the handshake is done, the authority that vouched for the peer must still be in the bundle of that moment;
- connections whose peer an authority vouched for that is gone are told so, by `on_distrust`.
"""

from __future__ import annotations

import logging
import ssl
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from meshlib.identity.identity import Identity
from meshlib.identity.material import Material, MaterialError
from meshlib.identity.verified import CheckingContext, VerifiedPeer, verified_chain
from meshlib.security.peer import Peer, PeerError, PeerRules

log = logging.getLogger("meshlib.identity")
_MAX_VOUCHED = 4096  # certificates of clients with TLS 1.2: what is forgotten is not resumed


class Connection(Protocol):
    """A connection of a server, as far as trust is concerned."""

    def reconsider(self) -> None:
        """Called on any thread when authorities were removed: ask `ServerTls.trusts` again."""


class ServerTls:
    """`ServerTls(identity)`: takes clients that have a SPIFFE ID in a certificate the identity's bundle vouches for.

    `require_client_certificate`: False also lets in clients that show none (they have no peer).
    `trust_domains`: whose IDs are taken; default the identity's own trust domain. `allow`: only these IDs, each in full
    or as `spiffe://domain/path/*`; default all. `alpn`: protocols to offer, in order of preference.
    `context` is what a server is given (uvicorn: `ssl_context_factory`, asyncio: `ssl=`). Raises MaterialError when the
    identity has no certificate, or no authorities to check clients with.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        require_client_certificate: bool = True,
        trust_domains: Iterable[str] | None = None,
        allow: Iterable[str] = (),
        alpn: Sequence[str] = (),
    ) -> None:
        self.identity = identity
        self._required = require_client_certificate
        self._alpn = tuple(alpn)
        own = identity.spiffe_id
        if trust_domains is None and own is not None:
            trust_domains = (own.trust_domain,)
        self._rules = PeerRules.of(trust_domains, allow)
        # By id: the references of this can be listed in one go, while other threads add connections.
        self._connections: weakref.WeakValueDictionary[int, Connection] = weakref.WeakValueDictionary()
        self._vouched: dict[bytes, bytes] = {}
        self._made: tuple[int, CheckingContext] | None = None
        self._context()
        self.context = self._bare_context()
        # Without a certificate of its own OpenSSL refuses the handshake before the swap.
        self._load(self.context, identity.current)
        self.context.sni_callback = self._step_aside
        identity.on_change(self._changed)

    def trusts(self, verified: VerifiedPeer | None) -> bool:
        """Whether the authority that vouched for a peer is (still) one of ours."""
        if verified is None:
            return False
        bundle = self.identity.current.bundle
        if not verified.anchor:
            return not self._required
        return bundle is not None and verified.anchor in bundle.anchors

    def follow(self, connection: Connection) -> None:
        """Tell a connection when authorities are removed, as long as it lives."""
        self._connections[id(connection)] = connection

    def _step_aside(self, tls: Any, _name: str | None, _front: ssl.SSLContext) -> None:
        self.identity.watch()
        tls.context = self._context()

    def _context(self) -> CheckingContext:
        """The context of the identity's newest state; made at most once for each."""
        version, made = self.identity.version, self._made
        if made is None or made[0] != version:
            context = self._bare_context()
            self._load(context, self.identity.current)
            made = self._made = version, context
        return made[1]

    def _bare_context(self) -> CheckingContext:
        context = CheckingContext.make(ssl.PROTOCOL_TLS_SERVER, self._admit)
        context.owner = self
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Both contexts must say so: verify_mode is not taken over in the swap.
        context.verify_mode = ssl.CERT_REQUIRED if self._required else ssl.CERT_OPTIONAL
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        if self._alpn:
            context.set_alpn_protocols(list(self._alpn))
        return context

    def _load(self, context: ssl.SSLContext, material: Material) -> None:
        if material.pair is None:
            raise MaterialError("a server needs a certificate: Identity.from_files(certificate, key, ca)")
        if material.bundle is None:
            raise MaterialError("a server that checks its clients needs authorities: Identity.from_files(..., ca=...)")
        material.pair.load_into(context)
        material.bundle.load_into(context)

    def _admit(self, tls: Any) -> VerifiedPeer:
        certificate = tls.getpeercert(True)
        if not certificate and not self._required:
            return VerifiedPeer()
        try:
            peer = Peer.of(certificate or b"")
            self._rules.check(peer)
            verified = VerifiedPeer(peer, certificate, self._anchor(tls, peer, certificate))
            if not verified.anchor or not self.trusts(verified):
                raise PeerError(f"{peer.spiffe_id}: the authority that vouched for it is no longer trusted")
        except PeerError as error:
            log.info("refused a client: %s", error)
            raise ssl.SSLCertVerificationError(1, f"client certificate refused: {error}") from None
        return verified

    def _anchor(self, tls: Any, peer: Peer, certificate: bytes) -> bytes:
        """The authority (DER) that vouches for a peer; empty when that is not known."""
        if chain := verified_chain(tls):
            if len(self._vouched) >= _MAX_VOUCHED:
                self._vouched.clear()
            if tls.version() == "TLSv1.2":
                self._vouched[certificate] = chain[-1]
            return chain[-1]
        if tls.session_reused and time.time() > peer.expires_at:  # nobody has looked at its dates this time
            raise PeerError(f"{peer.spiffe_id}: the certificate has expired")
        return self._vouched.get(certificate, b"") if tls.session_reused else b""

    def _changed(self, before: Material, after: Material) -> None:
        if before.bundle is None or after.bundle is None or not before.bundle.anchors - after.bundle.anchors:
            return
        for reference in self._connections.valuerefs():
            if (connection := reference()) is not None:
                _tell(connection)


def _tell(connection: Connection) -> None:
    try:
        connection.reconsider()
    except Exception:  # the others must hear of it all the same
        log.exception("%r could not be told that authorities were removed", connection)
