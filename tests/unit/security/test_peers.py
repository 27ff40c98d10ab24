"""From a certificate to a peer: read without a library, named by the URI alone, refused when in doubt."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.identity.dev_ca import DevCA
from meshlib.security.certificate import Certificate, CertificateError, certificates_in
from meshlib.security.der import Der, DerError
from meshlib.security.peer import Peer, PeerError, PeerRules

KEY = ec.generate_private_key(ec.SECP256R1())
BEGIN, END = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2051, 6, 7, 8, 9, 10, tzinfo=UTC)
ME = "spiffe://demo.test/ns/shop/sa/me"


def made(
    *names: x509.GeneralName, subject: str = "", extensions: tuple[Any, ...] = (), begin: datetime = BEGIN
) -> bytes:
    """A self-signed certificate; only what it says matters here."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name(attributes))
        .public_key(KEY.public_key())
        .serial_number(0xABCDEF)
        .not_valid_before(begin)
        .not_valid_after(END)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def test_what_a_certificate_says() -> None:
    names = (x509.DNSName("me.test"), uri(ME), x509.RFC822Name("me@me.test"), x509.DNSName("*.me.test"))
    read = Certificate.parse(made(*names))
    assert read == Certificate(
        "00abcdef", BEGIN.timestamp(), END.timestamp(), (ME,), ("me.test", "*.me.test"), authority=False
    )


def test_a_certificate_of_the_last_century() -> None:
    begin = datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert Certificate.parse(made(begin=begin)).not_before == begin.timestamp()


def test_the_peer_of_a_workloads_certificate() -> None:
    peer = Peer.of(made(uri(ME), x509.DNSName("me.test")))
    assert str(peer.spiffe_id) == ME
    assert peer.trust_domain == "demo.test"
    assert peer.serial == "00abcdef"
    assert peer.expires_at == END.timestamp()


@pytest.mark.parametrize(
    "certificate,reason",
    [
        (made(subject=ME), "exactly one URI subjectAltName, this one has 0"),
        (made(x509.DNSName(ME), subject=ME), "this one has 0"),
        (made(x509.RFC822Name("spiffe@demo.test")), "this one has 0"),
        (made(uri(ME), uri("spiffe://demo.test/admin")), "this one has 2"),
        (made(uri(ME), uri("https://demo.test")), "this one has 2"),
        (made(uri("https://demo.test/ns")), "does not begin with spiffe://"),
        (made(uri("spiffe://demo.test/a/../admin")), "one of dots"),
        (made(uri(ME), extensions=(x509.BasicConstraints(ca=True, path_length=None),)), "an authority's"),
        (made(uri(ME), extensions=(x509.KeyUsage(*[False] * 5, True, False, False, False),)), "an authority's"),
        (b"", "not a certificate"),
        (b"\x30\x03\x02\x01\x01", "not a certificate"),
    ],
)
def test_nobodys_certificates(certificate: bytes, reason: str) -> None:
    with pytest.raises(PeerError, match=reason):
        Peer.of(certificate)


def test_pythons_tls_reads_the_same_names() -> None:
    """OpenSSL's reading, for certificates of our own authority: the two must agree."""
    issued = DevCA.new().issue(ME, dns_names=["me.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    leaf = Certificate.parse(certificates_in(issued.certificate)[0])
    authority = Certificate.parse(certificates_in(issued.ca)[0])
    context.load_verify_locations(cadata=issued.ca.decode())
    (read,) = context.get_ca_certs()
    assert authority.authority
    assert not leaf.authority
    assert int(authority.serial, 16) == int(str(read["serialNumber"]), 16)
    assert authority.not_after == ssl.cert_time_to_seconds(str(read["notAfter"]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_an_error(data: bytes) -> None:
    for parse in (Certificate.parse, Peer.of, certificates_in):
        try:
            parse(data)  # type: ignore[operator]
        except (CertificateError, PeerError):
            continue


WHOLE = made(uri(ME), x509.DNSName("me.test"))


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
@example(160, 0)  # extensions without any
def test_a_certificate_with_a_wrong_byte_is_read_or_refused(at: int, byte: int) -> None:
    try:
        peer = Peer.of(WHOLE[:at] + bytes((byte,)) + WHOLE[at + 1 :])
        assert peer.spiffe_id.trust_domain
    except PeerError:
        return


@given(st.integers(0, len(WHOLE) - 1))
def test_a_certificate_cut_short_is_nobodys(end: int) -> None:
    with pytest.raises(PeerError):
        Peer.of(WHOLE[:end])


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x80", b"\x30\x85\x00\x00\x00\x00\x00", b"\x30\x82\x00", b"\x02\x00\x00"]
)
def test_what_is_no_der(data: bytes) -> None:
    with pytest.raises(DerError):
        Der.read(data)


def test_pem_with_words_between_and_pem_cut_short() -> None:
    one, two = DevCA.new().pem, DevCA.new().pem
    assert len(certificates_in(b"# one\n" + one + b"\nand two\n" + two)) == 2
    for end in range(1, len(two)):
        if b"BEGIN CERTIFICATE-----" in two[:end] and len(two) - end > 1:
            with pytest.raises(CertificateError):
                certificates_in(one + two[:end])


@pytest.mark.parametrize(
    "seconds,skew,verdict",
    [
        (-1, 0, "not yet valid"),
        (-1, 5, "valid"),
        (-6, 5, "not yet valid"),
        (0, 0, "valid"),
        (3600, 0, "valid"),
        (3601, 0, "expired"),
        (3604, 5, "valid"),
        (3606, 5, "expired"),
    ],
)
def test_validity_and_clocks_that_differ(seconds: float, skew: float, verdict: str) -> None:
    assert Certificate("1", 1000.0, 4600.0).validity(1000.0 + seconds, skew) == verdict


@pytest.mark.parametrize(
    "domains,allow,welcome",
    [
        (None, (), True),
        (("demo.test",), (), True),
        (("other.test", "demo.test"), (), True),
        (("other.test",), (), False),
        ((), (), False),
        (None, (ME,), True),
        (None, ("spiffe://demo.test/*",), True),
        (None, ("spiffe://demo.test/ns/tools/*",), False),
        (("other.test",), (ME,), False),
    ],
)
def test_which_peers_are_welcome(domains: tuple[str, ...] | None, allow: tuple[str, ...], welcome: bool) -> None:
    rules, peer = PeerRules.of(domains, allow), Peer.of(WHOLE)
    if welcome:
        rules.check(peer)
    else:
        with pytest.raises(PeerError):
            rules.check(peer)


def test_our_own_authority_issues_what_the_specification_wants() -> None:
    issued = DevCA.new().issue(ME, life=timedelta(minutes=5))
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [ME]
    assert list(certificate.subject) == []
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not usage.crl_sign
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=4)
