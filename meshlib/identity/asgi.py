"""What an ASGI application is told about the connection a request came by.

`extensions["tls"]` is ASGI's TLS extension; `extensions["meshlib"]` has the verified peer. Both are present only when a
server of ours made them: a request over plain text has neither, whatever its headers claim.
"""

from __future__ import annotations

import ssl
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from meshlib.identity.verified import VerifiedPeer
from meshlib.security.peer import Peer

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}  # the numbers of the protocol, as the extension wants them
_CIPHERS = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()}
_BODY = b"the authority that vouched for this connection is no longer trusted"


@dataclass(frozen=True, slots=True)
class RequestMesh:
    """What `request.state.mesh` holds: the caller, as mutual TLS has verified it (None without)."""

    peer: Peer | None = None


_NOBODY = RequestMesh()


def introduce(scope: MutableMapping[str, Any]) -> str:
    """Put `mesh` into the state of a scope. The caller's SPIFFE ID; empty when it has none that TLS has verified."""
    peer = peer_of(scope)
    state = scope.get("state")
    if state is None:
        state = scope["state"] = {}
    if peer is None:
        state["mesh"] = _NOBODY
        return ""
    state["mesh"] = RequestMesh(peer)
    return str(peer.spiffe_id)


def peer_of(scope: MutableMapping[str, Any]) -> Peer | None:
    """The verified caller of an ASGI scope; None when it showed no certificate, or the server cannot tell."""
    found = (scope.get("extensions") or {}).get("meshlib")
    peer = found.get("peer") if isinstance(found, dict) else None
    return peer if isinstance(peer, Peer) else None


def tls_extensions(connection: Any, verified: VerifiedPeer | None) -> dict[str, Any]:
    """The extensions for the scopes of a connection; empty without TLS."""
    if connection is None:
        return {}
    certificate = verified.certificate if verified is not None else b""
    cipher = connection.cipher() or ("",)
    return {
        "tls": {
            "server_cert": None,
            "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else [],
            "client_cert_name": None,  # an RFC 4514 subject: workloads have none, and are not known by it
            "client_cert_error": None,
            "tls_version": _VERSIONS.get(connection.version()),
            "cipher_suite": _CIPHERS.get(cipher[0]),
        },
        "meshlib": {"peer": verified.peer if verified is not None else None},
    }


async def misdirected(scope: Any, _receive: Any, send: Any) -> None:
    """Answers what comes over a connection whose peer is trusted no more: 421 invites to try another connection."""
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-length", b"%d" % len(_BODY)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
