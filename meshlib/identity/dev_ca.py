"""A certificate authority for development and tests: `meshlib ca`, the demo, your own tests.

Not for production: its key lies in a file beside its certificate, it keeps no record of what it issued, and it issues
to whoever asks. In production SPIRE, Istio, cert-manager or Consul write the files an `Identity` follows.
Needs `cryptography` (the extra `tls`); using the certificates does not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshlib.errors import ConfigurationError
from meshlib.identity.identity import FILES, Identity
from meshlib.security.spiffe import SpiffeId

__all__ = ["DevCA", "Issued"]

LEAF_CERTIFICATE, LEAF_KEY, CERTIFICATE = FILES
KEY = "ca.key"
_AUTHORITY_LIFE = timedelta(days=365)
_LIFE = timedelta(hours=24)
_SKEW = timedelta(minutes=5)  # clocks differ: nothing begins to be valid only now


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key and the authority that issued it, all PEM."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    ca: bytes = field(repr=False)

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write `tls.crt`, `tls.key` (mode 0600) and `ca.crt` (Kubernetes' names) into a folder, each by a rename."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        _replace(path / LEAF_KEY, self.key)
        _replace(path / LEAF_CERTIFICATE, self.certificate, 0o644)
        _replace(path / CERTIFICATE, self.ca, 0o644)
        return path

    def identity(self) -> Identity:
        """The identity, without files."""
        return Identity.from_pem(self.certificate, self.key, self.ca)


class DevCA:
    """An authority. `pem` is its certificate, for trust bundles. `new`, `init` and `load` make, keep and read one."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self._certificate = certificate
        self._key = key

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def new(cls, name: str = "meshlib development CA", life: timedelta = _AUTHORITY_LIFE) -> DevCA:
        """An authority in memory."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        usage = _usage(signs=True)
        public = key.public_key()
        builder = _builder(subject, subject, public, now, life)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def init(cls, folder: str | os.PathLike[str]) -> DevCA:
        """A new authority in a folder (`ca.crt`, `ca.key`); raises ConfigurationError when there is one already."""
        path = Path(folder)
        if (path / KEY).exists():
            raise ConfigurationError(f"{path / KEY} exists: an authority is not overwritten, remove it first")
        made = cls.new()
        path.mkdir(parents=True, exist_ok=True)
        _replace(path / KEY, _key_pem(made._key))
        _replace(path / CERTIFICATE, made.pem, 0o644)
        return made

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> DevCA:
        """The authority of a folder; raises ConfigurationError."""
        path = Path(folder)
        try:
            certificate = x509.load_pem_x509_certificate((path / CERTIFICATE).read_bytes())
            return cls(certificate, serialization.load_pem_private_key((path / KEY).read_bytes(), None))
        except FileNotFoundError as error:
            raise ConfigurationError(f"{error.filename}: not there; make an authority with: meshlib ca init") from None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}: no authority that could be used: {error}") from None

    def issue(
        self,
        spiffe_id: str,
        *,
        dns_names: Sequence[str] = (),
        life: timedelta = _LIFE,
        trust: Sequence[DevCA] = (),
        not_before: datetime | None = None,
    ) -> Issued:
        """A certificate for a workload, for both ends of a connection. `dns_names`: for clients without SPIFFE.

        `trust`: further authorities for the bundle, as while one replaces another. Raises SpiffeIdError.
        """
        SpiffeId.parse(spiffe_id)
        names = [x509.UniformResourceIdentifier(spiffe_id), *map(x509.DNSName, dns_names)]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key, names, not_before or datetime.now(UTC), life)
        bundle = b"".join(authority.pem for authority in (self, *trust))
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key), bundle)

    def _sign(self, key: Any, names: list[Any], begin: datetime, life: timedelta) -> x509.Certificate:
        # No subject: what names a workload is the URI. Such names must then be critical (RFC 5280 section 4.1.2.6).
        builder = _builder(x509.Name([]), self._certificate.subject, key.public_key(), begin, life)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(both, critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        signed: x509.Certificate = builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())
        return signed


def _builder(subject: x509.Name, issuer: x509.Name, public: Any, begin: datetime, life: timedelta) -> Any:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _SKEW)
        .not_valid_after(begin + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write beside the file and rename, so that no reader sees half of it; never readable by others in between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)  # a file of ours, not one that was put there
    with os.fdopen(handle, "wb") as out:
        out.write(content)
    beside.replace(path)
