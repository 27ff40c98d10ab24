"""Reads an identity from files so that only what belongs together is ever used.

Two files cannot be replaced in one step, except the way Kubernetes does it: the files are links through `..data`, a
link that is swapped. So the files are read between two looks at all of them (nothing may have changed meanwhile), and
what was read must work together: a certificate whose key is not written yet is no reason to give up the old pair.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshlib.identity.material import KeyPair, Material, MaterialError, TrustBundle

log = logging.getLogger("meshlib.identity")
_ATTEMPTS = 5

Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """The files of an identity; an empty name stands for none."""

    certificate: str = ""
    key: str = ""
    ca: str = ""

    def signature(self) -> Signature:
        """Changes whenever one of the files, or a link on the way to it, may have changed."""
        return tuple(_look(path) for path in (self.certificate, self.key, self.ca) if path)

    def read(self) -> tuple[Signature, Material]:
        """What the files hold, and their signature from before; raises MaterialError naming the file."""
        for _ in range(_ATTEMPTS):
            before = self.signature()
            contents = [_bytes(path) for path in (self.certificate, self.key, self.ca)]
            if self.signature() == before:
                return before, self._material(*contents)
        raise MaterialError(f"{self.certificate or self.ca}: is being written all the time")

    def _material(self, chain: bytes, key: bytes, ca: bytes) -> Material:
        pair = bundle = None
        if self.certificate:
            with _named(f"{self.certificate}, {self.key or self.certificate}"):
                pair = KeyPair.of(chain, key or chain)
        if self.ca:
            with _named(self.ca):
                bundle = TrustBundle.of(ca)
        return Material(pair, bundle)

    def warn_if_readable(self) -> None:
        """Say so when others than the owner may read the key."""
        path = self.key or self.certificate
        if path and stat.S_IMODE(Path(path).stat().st_mode) & 0o007:
            log.warning("private key %s can be read by every user of this machine: chmod 600", path)


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except MaterialError as error:
        raise MaterialError(f"{where}: {error}") from None


def _bytes(path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MaterialError(f"{path}: {error.strerror or error}") from None


def _look(path: str) -> Signature:
    try:
        found = os.stat(path)  # noqa: PTH116 - twice a second and file for ever: without making a Path
    except OSError as error:
        return (error.errno,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, os.path.realpath(path))
