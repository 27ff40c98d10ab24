"""What an X.509 certificate says of itself (RFC 5280), read with the standard library alone.

Signatures are not looked at here: whoever uses what is read has had TLS verify the chain.
"""

from __future__ import annotations

import binascii
import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass

from meshlib.security.der import Der, DerError

_SEQUENCE, _INTEGER, _OCTETS, _BOOLEAN, _BITS = 0x30, 0x02, 0x04, 0x01, 0x03
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_DNS_NAME, _URI_NAME = 0x82, 0x86
_SUBJECT_ALT_NAME, _BASIC_CONSTRAINTS, _KEY_USAGE = b"\x55\x1d\x11", b"\x55\x1d\x13", b"\x55\x1d\x0f"
_SIGNS_CERTIFICATES = 0x04  # keyCertSign in the first octet of the bits
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


class CertificateError(ValueError):
    """Bytes are no certificate that could be read."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`serial` in hexadecimal; times in Unix seconds; the subject is left out on purpose: it names nobody here."""

    serial: str
    not_before: float
    not_after: float
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    authority: bool = False

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """Read one certificate, or raise CertificateError."""
        try:
            return _certificate(der)
        except (DerError, ValueError, IndexError) as error:
            raise CertificateError(f"not a certificate: {error}") from None

    def validity(self, now: float, skew: float = 0.0) -> str:
        """Whether it is "valid", "expired" or "not yet valid" at `now` (Unix seconds), give or take `skew` seconds."""
        if now > self.not_after + skew:
            return "expired"
        return "not yet valid" if now < self.not_before - skew else "valid"


def certificates_in(pem: bytes) -> tuple[bytes, ...]:
    """The DER of every certificate in a PEM text; anything between them is ignored. Raises CertificateError, also for a
    text that was cut short.
    """
    bodies = _PEM.findall(pem)
    if len(bodies) != pem.count(_BEGIN):
        raise CertificateError("not PEM: a certificate begins and does not end")
    try:
        return tuple(binascii.a2b_base64(b"".join(body.split()), strict_mode=True) for body in bodies)
    except (ValueError, binascii.Error) as error:
        raise CertificateError(f"not PEM: {error}") from None


def _certificate(der: bytes) -> Certificate:
    signed = _first(Der.read(der).expect(_SEQUENCE)).expect(_SEQUENCE)
    fields = [field for field in signed.children() if field.tag != _VERSION]
    serial, _algorithm, _issuer, validity = fields[:4]
    not_before, not_after = (_time(moment) for moment in validity.expect(_SEQUENCE).children())
    names, authority = _NOBODY, False
    for oid, value in _extensions(fields):
        if oid == _SUBJECT_ALT_NAME:
            names = _names(value)
        elif oid == _BASIC_CONSTRAINTS:
            authority |= any(part.tag == _BOOLEAN and any(part.content) for part in value.children())
        elif oid == _KEY_USAGE:
            authority |= bool(value.expect(_BITS).content[1:2] and value.content[1] & _SIGNS_CERTIFICATES)
    return Certificate(serial.expect(_INTEGER).content.hex(), not_before, not_after, *names, authority)


_NOBODY: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def _extensions(fields: list[Der]) -> Iterator[tuple[bytes, Der]]:
    for field in fields:
        if field.tag == _EXTENSIONS:
            for extension in _first(field).expect(_SEQUENCE).children():
                parts = list(extension.children())
                yield parts[0].content, Der.read(parts[-1].expect(_OCTETS).content)


def _first(outer: Der) -> Der:
    """Its first element. (Inside a generator the end of another one must not pass for its own.)"""
    for inner in outer.children():
        return inner
    raise DerError("nothing where something belongs")


def _names(value: Der) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = list(value.expect(_SEQUENCE).children())
    return (
        tuple(name.content.decode("ascii") for name in names if name.tag == _URI_NAME),
        tuple(name.content.decode("ascii") for name in names if name.tag == _DNS_NAME),
    )


def _time(moment: Der) -> float:
    text = moment.content.decode("ascii")
    if moment.tag == _UTC_TIME:  # RFC 5280 section 4.1.2.5.1: 50 to 99 are the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    elif moment.tag != _GENERALIZED_TIME:
        raise DerError("no time where one belongs")
    if not re.fullmatch(r"[0-9]{14}Z", text):
        raise DerError("a time that is not written in UTC to the second")
    year, rest = int(text[:4]), [int(text[at : at + 2]) for at in range(4, 14, 2)]
    return float(calendar.timegm((year, *rest, 0, 0, 0)))
