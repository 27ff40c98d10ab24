"""TLS contexts of clusters: one per distinct configuration, made when the first connection needs it."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from meshlib.errors import ConfigurationError
from meshlib.model.cluster import UpstreamTls
from meshlib.model.matchers import StringMatcher
from meshlib.routing.strings import compile_string

# ssl's names for the kinds of subjectAltName, by Envoy's.
_SAN_KINDS = {"DNS": "DNS", "URI": "URI", "EMAIL": "email", "IP_ADDRESS": "IP Address"}
_Rule = tuple[str, Callable[[str], bool]]


class _NamedContext(ssl.SSLContext):
    """A context that lets a handshake succeed only if the peer's certificate has one of the wanted names.

    The check runs inside the handshake of both kinds of TLS object, so no connection is ever used unchecked.
    """

    rules: tuple[_Rule, ...] = ()

    def check_names(self, certificate: Any) -> None:
        """Raise SSLCertVerificationError unless a subjectAltName satisfies a rule (Envoy: any one of them)."""
        names = (certificate or {}).get("subjectAltName", ())
        for kind, holds in self.rules:
            if any(kind == found and holds(value) for found, value in names):
                return
        shown = ", ".join(f"{kind}:{value}" for kind, value in names) or "none"
        raise ssl.SSLCertVerificationError(f"no subjectAltName matches match_typed_subject_alt_names (it has: {shown})")


class _NamedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self.context, self.getpeercert())


class _NamedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(self.context, self.getpeercert())


def _check(context: ssl.SSLContext, certificate: Any) -> None:
    if isinstance(context, _NamedContext):
        context.check_names(certificate)


@lru_cache(maxsize=1)
def default_context() -> ssl.SSLContext:
    """For an `https` URL whose cluster has no TLS of its own: the system's authorities, and the URL's host name."""
    return ssl.create_default_context()


@lru_cache(maxsize=1024)
def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """The context for a cluster's `UpstreamTlsContext`.

    As in Envoy the server is not verified unless a validation context is given, the host name is not checked (identity
    is a matter of `match_typed_subject_alt_names`), and TLS is 1.2 at least.
    Raises ConfigurationError naming what cannot be used; connecting then fails, never with less protection.
    """
    if tls.unusable:
        raise ConfigurationError(f"the cluster's TLS cannot be used: {tls.unusable}")
    context = _named(tls) if tls.subject_alt_names else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.trusted_ca or tls.trusted_ca_pem:
        _trust(context, tls)
    elif tls.system_root_certs:
        context.load_default_certs()
        context.verify_mode = ssl.CERT_REQUIRED
    elif tls.subject_alt_names:
        raise ConfigurationError("match_typed_subject_alt_names needs a trusted_ca: unverified names mean nothing")
    if tls.certificate_chain or tls.certificate_chain_pem:
        _identify(context, tls)
    return context


def _named(tls: UpstreamTls) -> _NamedContext:
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = _NamedObject
    context.sslsocket_class = _NamedSocket
    context.rules = tuple(
        (_SAN_KINDS.get(kind, kind), compile_string(StringMatcher(matcher, value)))  # type: ignore[arg-type]
        for kind, matcher, value in tls.subject_alt_names
    )
    return context


def _trust(context: ssl.SSLContext, tls: UpstreamTls) -> None:
    with _readable("trusted_ca", tls.trusted_ca):
        context.load_verify_locations(tls.trusted_ca or None, cadata=tls.trusted_ca_pem.decode("ascii") or None)
    context.verify_mode = ssl.CERT_REQUIRED


def _identify(context: ssl.SSLContext, tls: UpstreamTls) -> None:
    with (
        _readable("certificate_chain", tls.certificate_chain),
        _file(tls.certificate_chain, tls.certificate_chain_pem) as chain,
        _file(tls.private_key, tls.private_key_pem) as key,
    ):
        context.load_cert_chain(chain, key or None)


@contextmanager
def _file(name: str, pem: bytes) -> Iterator[str]:
    """The file of a certificate or key; inline PEM goes into a private one, because ssl only loads files."""
    if name or not pem:
        yield name
        return
    handle, path = tempfile.mkstemp(prefix="meshlib-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(pem)
        yield path
    finally:
        Path(path).unlink()


@contextmanager
def _readable(what: str, where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"TLS {what} {where or '(inline)'}: {error}") from error
