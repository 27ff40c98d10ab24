"""The TLS context towards a Consul agent."""

from __future__ import annotations

import ssl

from meshlib.errors import ConfigurationError
from meshlib.sources.consul.settings import ConsulSettings


def tls_context(settings: ConsulSettings) -> ssl.SSLContext | None:
    """None for plain HTTP. Certificates are read from their files now: made anew for each connection, rotated ones
    count. Raises `ConfigurationError` naming the file that cannot be used.
    """
    if not settings.address.is_https:
        return None
    context = ssl.create_default_context()
    # Consul's agents speak HTTP/2 over TLS to whoever asks for it; this client does not.
    context.set_alpn_protocols(["http/1.1"])
    if settings.ca_file or settings.ca_path:
        context = _trusting(settings, context)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"Consul client certificate {settings.cert_file}: {error}") from None
    return context


def _trusting(settings: ConsulSettings, context: ssl.SSLContext) -> ssl.SSLContext:
    """Only the authorities named: the system's are not asked as well."""
    named = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    named.set_alpn_protocols(["http/1.1"])
    named.minimum_version = context.minimum_version
    try:
        named.load_verify_locations(settings.ca_file or None, settings.ca_path or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"Consul CA {settings.ca_file or settings.ca_path}: {error}") from None
    return named


def tls_server_name(settings: ConsulSettings) -> str | None:
    """The name a certificate must hold; None for plain HTTP."""
    if not settings.address.is_https:
        return None
    return settings.tls_server_name or settings.address.host or "localhost"
