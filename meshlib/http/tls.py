"""TLS contexts of clusters, one per distinct configuration."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import lru_cache

from meshlib.errors import ConfigurationError
from meshlib.model.cluster import UpstreamTls


@lru_cache(maxsize=1024)
def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """The context for a cluster's `UpstreamTlsContext`.

    As in Envoy the server is not verified unless a validation context is given, and the host name is not checked
    (identity is a matter of `match_typed_subject_alt_names`). TLS 1.2 at least.
    Raises ConfigurationError naming the file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.trusted_ca or tls.trusted_ca_pem:
        _load("trusted_ca", tls.trusted_ca, lambda: _trust(context, tls))
        context.verify_mode = ssl.CERT_REQUIRED
    if tls.certificate_chain:
        _load("certificate_chain", tls.certificate_chain, lambda: _identify(context, tls))
    return context


def _trust(context: ssl.SSLContext, tls: UpstreamTls) -> None:
    context.load_verify_locations(tls.trusted_ca or None, cadata=tls.trusted_ca_pem.decode("ascii") or None)


def _identify(context: ssl.SSLContext, tls: UpstreamTls) -> None:
    context.load_cert_chain(tls.certificate_chain, tls.private_key or None)


def _load(what: str, where: str, action: Callable[[], None]) -> None:
    try:
        action()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"TLS {what} {where or '(inline)'}: {error}") from error
