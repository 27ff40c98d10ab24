"""The client's end of TLS: contexts for what clusters ask (`UpstreamTlsContext`), made anew when material rotates."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from meshlib.errors import ConfigurationError
from meshlib.identity.identity import Identity
from meshlib.identity.material import Material, MaterialError
from meshlib.identity.verified import CheckingContext
from meshlib.model.cluster import UpstreamTls
from meshlib.model.matchers import StringMatcher
from meshlib.routing.strings import StringTest, compile_string
from meshlib.routing.text import ascii_lower
from meshlib.security.spiffe import SpiffePattern

DEFAULT = "default"
_MAX_CONTEXTS = 1024  # distinct configurations come from the control plane, so they must have an end
# ssl's names for the kinds of subjectAltName, by Envoy's.
_SAN_KINDS = {"DNS": "DNS", "URI": "URI", "EMAIL": "email", "IP_ADDRESS": "IP Address"}
_Rule = tuple[str, StringTest]
_VERSIONS = {"TLSv1_2": ssl.TLSVersion.TLSv1_2, "TLSv1_3": ssl.TLSVersion.TLSv1_3}


class Providers(Protocol):
    """Finds certificate providers by instance name (gRFC A29)."""

    def __call__(self, name: str, /) -> Identity | None:
        """The identity a provider instance stands for, None when there is no such instance."""


def mtls(*peers: str, sni: str = "", identity: str = DEFAULT) -> UpstreamTls:
    """Mutual TLS for a cluster in code, with the mesh's own identity, to servers of these SPIFFE IDs only.

    Each of `peers` is an ID, or `spiffe://domain/path/*` for all below a path. `identity` names one of several given to
    `Mesh(identity={...})`. Raises SpiffeIdError.
    """
    if not peers:
        raise ConfigurationError("mtls() needs the SPIFFE IDs of the servers: whom else should it believe?")
    patterns = [SpiffePattern.parse(text) for text in peers]
    names = tuple(
        ("URI", "prefix", f"{pattern.id}/") if pattern.below else ("URI", "exact", str(pattern.id))
        for pattern in patterns
    )
    return UpstreamTls(sni=sni, certificate_provider=identity, ca_provider=identity, subject_alt_names=names)


class Secured:
    """A context for one cluster's TLS, good until what it was made of has rotated (`stale`)."""

    __slots__ = ("_sources", "context", "server_name")

    def __init__(
        self, context: ssl.SSLContext | None, server_name: str | None, sources: tuple[tuple[Identity, int], ...] = ()
    ) -> None:
        self.context = context
        self.server_name = server_name
        self._sources = sources

    @property
    def stale(self) -> bool:
        """Whether a newer context is to be had: connections of this one serve what they carry, and no more."""
        # Asked before every call, so without a generator.
        for identity, version in self._sources:  # noqa: SIM110
            if identity.version != version:
                return True
        return False


PLAIN = Secured(None, None)


class Upstreams:
    """The contexts of a mesh's clusters. `providers` finds certificate provider instances by name."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._files: dict[tuple[str, str, str], Identity] = {}
        self._made: dict[tuple[UpstreamTls, tuple[str, ...]], Secured] = {}

    def secure(self, tls: UpstreamTls, alpn: tuple[str, ...] = (), host: str = "") -> Secured:
        """The newest context for a cluster's TLS; `host` is the request's, for TLS that goes by it (`by_host`).

        As in Envoy the server is not verified unless a validation context is given, the host name is not checked
        (identity is a matter of `match_typed_subject_alt_names`), and TLS is 1.2 at least. Raises ConfigurationError
        naming what cannot be used; connecting then fails, never with less protection.
        """
        if tls.by_host:
            tls = _for_host(tls, host)
        made = self._made.get((tls, alpn))
        if made is None or made.stale:
            if len(self._made) >= _MAX_CONTEXTS:
                self._made.clear()
            made = self._made[(tls, alpn)] = self._make(tls, alpn)
        return made

    def _make(self, tls: UpstreamTls, alpn: tuple[str, ...]) -> Secured:
        if tls.unusable:
            raise ConfigurationError(f"the cluster's TLS cannot be used: {tls.unusable}")
        pair, bundle = self._pair(tls), self._bundle(tls)
        # The versions first: what rotates in between makes the new context stale, never unnoticed.
        sources = tuple((identity, identity.version) for identity in (pair, bundle) if identity is not None)
        context = _context(tls)
        if bundle is not None:
            _trust(context, bundle.current, tls)
        elif tls.system_root_certs:
            context.load_default_certs()
            context.verify_mode = ssl.CERT_REQUIRED
        elif tls.auto_san_validation:
            raise ConfigurationError("auto_san_validation needs a trusted_ca: unverified names mean nothing")
        elif tls.subject_alt_names:
            raise ConfigurationError("match_typed_subject_alt_names needs a trusted_ca: unverified names mean nothing")
        if pair is not None:
            _show(context, pair.current, tls)
        if tls.auto_san_validation:
            context.check_hostname = True  # for the SNI, which is then the request's host
            context.hostname_checks_common_name = False  # as in Envoy: a subject names nobody
        if offered := _offered(tls, alpn):
            context.set_alpn_protocols(offered)
        for identity, _ in sources:
            identity.watch()
        return Secured(context, tls.sni or None, sources)

    def _pair(self, tls: UpstreamTls) -> Identity | None:
        if tls.certificate_provider:
            return self._provider(tls.certificate_provider)
        if tls.certificate_chain and not tls.private_key_pem:
            return self._file("certificate_chain", tls.certificate_chain, tls.private_key)
        chain = tls.certificate_chain_pem or _content("certificate_chain", tls.certificate_chain)
        key = tls.private_key_pem or _content("private_key", tls.private_key)
        return _inline("certificate_chain", chain, key) if chain else None

    def _bundle(self, tls: UpstreamTls) -> Identity | None:
        if tls.ca_provider:
            return self._provider(tls.ca_provider)
        if tls.trusted_ca:
            return self._file("trusted_ca", ca=tls.trusted_ca)
        if tls.trusted_ca_pem:
            return _inline("trusted_ca", ca=tls.trusted_ca_pem)
        return None

    def _provider(self, name: str) -> Identity:
        found = self._providers(name)
        if found is None:
            raise ConfigurationError(
                f"no certificate provider {name!r}: give the mesh an identity (Mesh(..., identity=...)), or name the "
                "instance in the bootstrap's certificate_providers"
            )
        return found

    def _file(self, what: str, certificate: str = "", key: str = "", ca: str = "") -> Identity:
        files = (certificate, key, ca)
        if files not in self._files:
            try:
                self._files[files] = Identity.from_files(*files)
            except MaterialError as error:
                raise ConfigurationError(f"TLS {what} {error}") from error
        return self._files[files]


def named_identities(given: Identity | Mapping[str, Identity] | None) -> Mapping[str, Identity]:
    """Identities by provider instance name: one stands for "default" and for Istio's name of the root, "ROOTCA"."""
    if given is None:
        return {}
    return {DEFAULT: given, "ROOTCA": given} if isinstance(given, Identity) else given


def _offered(tls: UpstreamTls, alpn: tuple[str, ...]) -> list[str]:
    """The protocols to offer; for a sidecar as another sidecar does (istiod's `istio.alpn` filter)."""
    if not tls.istio_alpn:
        return list(alpn)
    if "h2" in alpn:
        return ["istio-h2", "istio", *alpn]
    return ["istio-http/1.1", "istio", *(alpn or ("http/1.1",))]


def _for_host(tls: UpstreamTls, host: str) -> UpstreamTls:
    """The TLS of connections for a host. Python checks a certificate for the SNI only, so the two must be one name."""
    name = tls.sni or (host if tls.auto_sni else "")
    if tls.auto_san_validation and (not host or name != host):
        raise ConfigurationError(f"the certificate must be for {host or 'a host'}, and the SNI says {name or 'none'}")
    return replace(tls, sni=name, auto_sni=False)


def _inline(what: str, certificate: bytes = b"", key: bytes = b"", ca: bytes = b"") -> Identity:
    try:
        return Identity.from_pem(certificate, key, ca)
    except MaterialError as error:
        raise ConfigurationError(f"TLS {what} (inline): {error}") from error


def _content(what: str, file: str) -> bytes:
    """A file beside an inline part: read as it is, for nothing could follow half of a pair."""
    try:
        return Path(file).read_bytes() if file else b""
    except OSError as error:
        raise ConfigurationError(f"TLS {what} {file}: {error.strerror or error}") from None


def _context(tls: UpstreamTls) -> ssl.SSLContext:
    context: ssl.SSLContext
    if tls.subject_alt_names:
        context = CheckingContext.make(ssl.PROTOCOL_TLS_CLIENT, _name_check(tls))
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[tls.minimum_version]
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trust(context: ssl.SSLContext, material: Material, tls: UpstreamTls) -> None:
    if material.bundle is None:
        raise ConfigurationError(f"certificate provider {tls.ca_provider!r} has no trusted authorities")
    material.bundle.load_into(context)
    context.verify_mode = ssl.CERT_REQUIRED


def _show(context: ssl.SSLContext, material: Material, tls: UpstreamTls) -> None:
    if material.pair is None:
        raise ConfigurationError(f"certificate provider {tls.certificate_provider!r} has no certificate")
    material.pair.load_into(context)


def _name_check(tls: UpstreamTls) -> Callable[[Any], None]:
    """What lets a handshake succeed only if the server's certificate has one of the wanted names (Envoy: any one).

    A certificate with several URI names is nobody's (X.509-SVID, section 2), so such a name then counts for nothing.
    """
    rules: tuple[_Rule, ...] = tuple(
        (_SAN_KINDS.get(kind, kind), _name_test(kind, matcher, value)) for kind, matcher, value in tls.subject_alt_names
    )

    def check(connection: Any) -> None:
        names = (connection.getpeercert() or {}).get("subjectAltName", ())
        several = sum(kind == "URI" for kind, _ in names) > 1
        for kind, holds in rules:
            if any(kind == found and holds(value) and not (several and kind == "URI") for found, value in names):
                return
        shown = ", ".join(f"{kind}:{value}" for kind, value in names) or "none"
        reason = f"no subjectAltName matches match_typed_subject_alt_names (it has: {shown})"
        raise ssl.SSLCertVerificationError(1, reason)  # with a number, or its text would be that of a tuple

    return check


def _name_test(kind: str, matcher: str, value: str) -> StringTest:
    """As Envoy: an exact DNS name is matched as a host's is, by a certificate's wildcard as well."""
    if (kind, matcher) == ("DNS", "exact"):
        return lambda name: _names_host(ascii_lower(name), ascii_lower(value))
    return compile_string(StringMatcher(matcher, value))  # type: ignore[arg-type]


def _names_host(name: str, host: str) -> bool:
    """Whether a DNS name of a certificate is the host's; a `*` is its whole first label (RFC 6125, section 6.4.3)."""
    first, dot, rest = host.partition(".")
    return name == host or (bool(first and dot) and name == f"*.{rest}")
