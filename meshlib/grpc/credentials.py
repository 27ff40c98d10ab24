"""Channel credentials of a cluster's TLS."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc

from meshlib.errors import ConfigurationError
from meshlib.model.cluster import UpstreamTls

Options = tuple[tuple[str, Any], ...]
_UNVERIFIED = (
    "grpcio verifies every server: the cluster's TLS needs a trusted_ca (or system_root_certs); without, Envoy would "
    "not verify, and grpcio cannot do that"
)


def channel_credentials(tls: UpstreamTls) -> grpc.ChannelCredentials:
    """The credentials for a cluster's `UpstreamTlsContext`. Files are read now.

    Raises ConfigurationError naming what cannot be honoured; connecting then fails, never with less protection.
    """
    if tls.unusable:
        raise ConfigurationError(f"the cluster's TLS cannot be used: {tls.unusable}")
    if not (tls.trusted_ca or tls.trusted_ca_pem or tls.system_root_certs):
        raise ConfigurationError(_UNVERIFIED)
    verified_name(tls)
    roots = _pem("trusted_ca", tls.trusted_ca, tls.trusted_ca_pem)
    chain = _pem("certificate_chain", tls.certificate_chain, tls.certificate_chain_pem)
    key = _pem("private_key", tls.private_key, tls.private_key_pem)
    if (chain is None) != (key is None):
        raise ConfigurationError("a client certificate needs its certificate_chain and its private_key")
    return grpc.ssl_channel_credentials(roots or _system_roots(), key, chain)


def verified_name(tls: UpstreamTls) -> str:
    """The name grpcio checks the server's certificate for: the one exact DNS name that
    `match_typed_subject_alt_names` asks for, else the SNI; empty leaves it to the call's authority.
    """
    if not tls.subject_alt_names:
        return tls.sni
    if len(tls.subject_alt_names) == 1:
        kind, matcher, value = tls.subject_alt_names[0]
        if kind == "DNS" and matcher == "exact":
            return value
    rules = ", ".join(f"{kind} {matcher} {value!r}" for kind, matcher, value in tls.subject_alt_names)
    raise ConfigurationError(f"match_typed_subject_alt_names: grpcio can check one exact DNS name only, not: {rules}")


def tls_options(tls: UpstreamTls, authority: str) -> Options:
    """Channel options that make grpcio send the SNI and check the name the cluster's TLS asks for."""
    name = verified_name(tls)
    if name and tls.sni and tls.sni != name:
        raise ConfigurationError(f"sni {tls.sni!r} and the name to check {name!r} differ: grpcio uses one for both")
    return (("grpc.ssl_target_name_override", name),) if name and name != authority else ()


@lru_cache(maxsize=1)
def _system_roots() -> bytes | None:
    """The system's authorities, as Envoy's `system_root_certs` means them; None leaves grpcio to its own bundle."""
    import ssl

    for name in (ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if name and Path(name).is_file():
            return Path(name).read_bytes()
    return None


def _pem(what: str, name: str, inline: bytes) -> bytes | None:
    if inline:
        return inline
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"TLS {what} {name}: {error}") from error
