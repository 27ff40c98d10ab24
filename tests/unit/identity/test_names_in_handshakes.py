"""Which names of a server's certificate count, by real handshakes in memory."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshlib.identity.material import KeyPair
from meshlib.identity.upstream import Upstreams
from meshlib.model.cluster import UpstreamTls

HOST = "payments.test"
KEY = ec.generate_private_key(ec.SECP256R1())
KEY_PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate(common_name: str = "", names: Sequence[x509.GeneralName] = ()) -> bytes:
    """A certificate that is its own authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def server_of(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    KeyPair.of(pem, KEY_PEM).load_into(context)
    return context


def believes(tls: UpstreamTls, server: ssl.SSLContext, host: str = HOST) -> bool:
    """Whether a client with the cluster's TLS takes the server for the one it wants."""
    secured = Upstreams(lambda _: None).secure(tls, host=host)
    assert secured.context is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = secured.context.wrap_bio(to_client, to_server, server_hostname=secured.server_name)
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    done = False
    for _ in range(5):
        for end in (client_end, server_end):
            try:
                end.do_handshake()
                done = done or end is client_end
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    assert done
    return True


def test_the_requests_host_is_looked_for_in_the_alternative_names_only() -> None:
    """As in Envoy: a certificate without such names is nobody's, whatever its subject says."""
    by_name, by_subject = certificate(names=[x509.DNSName(HOST)]), certificate(common_name=HOST)
    for pem, expected in ((by_name, True), (by_subject, False)):
        tls = UpstreamTls(trusted_ca_pem=pem, auto_sni=True, auto_san_validation=True)
        assert believes(tls, server_of(pem)) is expected


@pytest.mark.parametrize(
    "name, wanted, expected",
    [
        (HOST, HOST, True),
        (HOST, "PAYMENTS.test", True),
        ("*.test", HOST, True),
        ("*.TEST", HOST, True),
        ("*.test", "a.payments.test", False),
        ("*.test", "test", False),
        ("*.test", ".test", False),
        ("*", "test", False),
        ("pay*.test", HOST, False),
        ("*.*.test", "a.payments.test", False),
        (HOST, "refunds.test", False),
        (HOST, "*.test", False),
    ],
)
def test_an_exact_dns_name_is_matched_as_names_of_hosts_are(name: str, wanted: str, expected: bool) -> None:
    """As Envoy's DnsExactStringSanMatcher: a certificate's `*` stands for the first label."""
    pem = certificate(names=[x509.DNSName(name)])
    tls = UpstreamTls(trusted_ca_pem=pem, subject_alt_names=(("DNS", "exact", wanted),))
    assert believes(tls, server_of(pem)) is expected


def test_other_names_are_matched_as_they_are() -> None:
    pem = certificate(names=[x509.UniformResourceIdentifier("spiffe://demo.test/*"), x509.DNSName("*.test")])
    for kind, matcher, value, expected in (
        ("URI", "exact", "spiffe://demo.test/a", False),
        ("URI", "exact", "spiffe://demo.test/*", True),
        ("DNS", "suffix", "payments.test", False),
        ("DNS", "suffix", ".test", True),
    ):
        tls = UpstreamTls(trusted_ca_pem=pem, subject_alt_names=((kind, matcher, value),))
        assert believes(tls, server_of(pem)) is expected, (kind, matcher, value)


def test_an_older_version_than_the_cluster_wants_is_not_spoken() -> None:
    pem = certificate(names=[x509.DNSName(HOST)])
    old = server_of(pem)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = UpstreamTls(trusted_ca_pem=pem, subject_alt_names=(("DNS", "exact", HOST),))
    assert believes(tls, old)
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        believes(UpstreamTls(trusted_ca_pem=pem, minimum_version="TLSv1_3"), old)
