"""What an identity consists of: a key pair and a trust bundle, as values that were checked when they were made.

No repr, message or log line of this module holds a key.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meshlib.errors import ConfigurationError
from meshlib.security.certificate import Certificate, CertificateError, certificates_in
from meshlib.security.spiffe import SpiffeId, SpiffeIdError, sole_id


class MaterialError(ConfigurationError):
    """A certificate, key or bundle cannot be used; the message names the file and the reason, never the key."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain (leaf first) and its private key, both PEM. `of` checks that they belong together."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    leaf: Certificate

    @classmethod
    def of(cls, chain: bytes, key: bytes) -> KeyPair:
        """Check and keep a pair; raises MaterialError."""
        try:
            certificates = certificates_in(chain)
            if not certificates:
                raise MaterialError("the certificate chain holds no certificate")
            pair = cls(chain, key, Certificate.parse(certificates[0]))
        except CertificateError as error:
            raise MaterialError(f"the certificate chain is {error}") from None
        pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return pair

    @property
    def spiffe_id(self) -> SpiffeId | None:
        """Who this is; None when the certificate is no X.509-SVID."""
        try:
            return sole_id(self.leaf.uris)
        except SpiffeIdError:
            return None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make a context show this certificate; raises MaterialError."""
        try:
            with _as_file(self.chain) as chain, _as_file(self.key) as key:
                # Without a password ssl would ask on the terminal: an encrypted key must fail instead.
                context.load_cert_chain(chain, key, password=_no_password)
        except ssl.SSLError as error:
            raise MaterialError(f"certificate and key do not work together: {error.reason or error}") from None
        except (OSError, ValueError) as error:
            raise MaterialError(f"the certificate or its key cannot be used: {error}") from None


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The authorities that may vouch for peers. `anchors` are their certificates in DER."""

    pem: bytes = field(repr=False)
    anchors: frozenset[bytes] = field(repr=False)

    @classmethod
    def of(cls, pem: bytes) -> TrustBundle:
        """Check and keep a bundle; raises MaterialError."""
        try:
            anchors = frozenset(certificates_in(pem))
        except CertificateError as error:
            raise MaterialError(f"the trust bundle is {error}") from None
        if not anchors:
            raise MaterialError("the trust bundle holds no certificate")
        bundle = cls(pem, anchors)
        bundle.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return bundle

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make a new context trust these authorities (a context in use would only ever trust more)."""
        try:
            context.load_verify_locations(cadata=b"".join(self.anchors))
        except (ssl.SSLError, ValueError) as error:
            raise MaterialError(f"the trust bundle cannot be used: {error}") from None

    def __len__(self) -> int:
        return len(self.anchors)


@dataclass(frozen=True, slots=True)
class Material:
    """One state of an identity. Either part may be absent: a client may only verify, a server may only show."""

    pair: KeyPair | None = None
    bundle: TrustBundle | None = None


def _no_password() -> str:
    raise ValueError("the private key is encrypted; give one that is not, readable by its owner only")


@contextlib.contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """The PEM under a file name, because ssl reads nothing else: in memory on Linux, else private and short-lived."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("meshlib", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(handle), "wb") as out:
                out.write(pem)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    handle, path = tempfile.mkstemp(prefix="meshlib-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(pem)
        yield path
    finally:
        Path(path).unlink()
