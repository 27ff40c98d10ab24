"""Identity: who this workload is and whom it trusts, always the newest state that was good."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from meshlib.identity.files import IdentityFiles, Signature
from meshlib.identity.material import KeyPair, Material, MaterialError, TrustBundle
from meshlib.identity.poller import POLLER
from meshlib.security.spiffe import SpiffeId

log = logging.getLogger("meshlib.identity")
REFRESH_SECONDS = 1.0
_NEARLY = 0.1  # of a certificate's life: what is left when nobody has renewed it and somebody should know

FILES = ("tls.crt", "tls.key", "ca.crt")

Listener = Callable[[Material, Material], None]


_every: weakref.WeakSet[Identity] = weakref.WeakSet()


class Identity:
    """A certificate with its key, and the authorities that vouch for peers. Make it with `from_files` or `from_pem`.

    `current` is a value that never changes; a rotation puts another in its place. `version` counts them. What cannot be
    used (a pair half written, a key that does not fit, an empty bundle) is logged and reported in `problem`, and the
    last good state stays in force. An expired certificate stays in force too, and is reported: only its peers can tell
    whether they still take it.
    """

    def __init__(self, material: Material, *, refresh_interval: float = REFRESH_SECONDS) -> None:
        self.current = material
        self.version = 0
        self.problem = ""
        self.refresh_interval = refresh_interval
        self._files: IdentityFiles | None = None
        self._signature: Signature = ()
        self._listeners: tuple[Listener, ...] = ()
        self._said = ""
        self._forget()
        _every.add(self)

    def _forget(self) -> None:
        """In a forked child: a lock that the parent's thread held would never be given back here."""
        self._changing = threading.RLock()  # a listener may come back here

    @classmethod
    def from_files(
        cls,
        certificate: str | os.PathLike[str] = "",
        key: str | os.PathLike[str] = "",
        ca: str | os.PathLike[str] = "",
        *,
        refresh_interval: float = REFRESH_SECONDS,
    ) -> Identity:
        """An identity that follows its files, looked at every `refresh_interval` seconds (1) once it is used.

        PEM: the chain (leaf first), its key (default: in the same file), the trusted authorities. Replace them in any
        order and in any way; the pair is taken when certificate and key fit. Raises MaterialError when they cannot be
        used to begin with.
        """
        files = IdentityFiles(os.fspath(certificate), os.fspath(key), os.fspath(ca))
        signature, material = files.read()
        identity = cls(material, refresh_interval=refresh_interval)
        identity._files, identity._signature = files, signature
        files.warn_if_readable()
        return identity

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], *, refresh_interval: float = REFRESH_SECONDS) -> Identity:
        """`from_files` of `tls.crt`, `tls.key` and `ca.crt` in a folder: what a mounted Kubernetes secret of
        cert-manager holds, and what `meshlib ca issue` writes.
        """
        names = (os.path.join(folder, name) for name in FILES)  # noqa: PTH118 - any path-like
        return cls.from_files(*names, refresh_interval=refresh_interval)

    @classmethod
    def from_pem(cls, certificate: bytes = b"", key: bytes = b"", ca: bytes = b"") -> Identity:
        """An identity from memory; `replace` rotates it. Raises MaterialError."""
        return cls(_material(certificate, key, ca))

    @property
    def spiffe_id(self) -> SpiffeId | None:
        """Who this is; None without a certificate, or with one that is no X.509-SVID."""
        pair = self.current.pair
        return None if pair is None else pair.spiffe_id

    @property
    def expires_at(self) -> float | None:
        """When the certificate expires (Unix seconds); None without one."""
        pair = self.current.pair
        return None if pair is None else pair.leaf.not_after

    def watch(self) -> None:
        """Begin to follow the files (idempotent, cheap). What makes contexts of an identity calls this by itself."""
        if self._files is not None and POLLER.add(self):
            self.poll()  # they may have changed since they were read

    def poll(self) -> None:
        """Look at the files now, instead of waiting for the next look. Never raises for what they hold."""
        with self._changing:
            if self._files is not None and self._files.signature() != self._signature:
                self._read(self._files)
        self._tell_of_expiry(time.time())

    def replace(self, certificate: bytes = b"", key: bytes = b"", ca: bytes = b"") -> None:
        """Put another state into force, from PEM; what is left out stays. Raises MaterialError, keeping the old one."""
        given, now = _material(certificate, key, ca), self.current
        with self._changing:
            self._put(Material(given.pair or now.pair, given.bundle or now.bundle))

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(before, after)` at every change, on the thread that noticed it; returns what ends that."""
        with self._changing:
            self._listeners = (*self._listeners, listener)

        def end() -> None:
            with self._changing:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return end

    def close(self) -> None:
        """Follow the files no more."""
        POLLER.remove(self)

    def _read(self, files: IdentityFiles) -> None:
        try:
            self._signature, material = files.read()
        except MaterialError as error:
            if str(error) != self.problem:
                log.warning("keeping the certificates in force: %s", error)
            self.problem = str(error)
            return
        self.problem = ""
        if material != self.current:
            self._put(material)

    def _put(self, material: Material) -> None:
        before, self.current = self.current, material
        self.version += 1
        log.info("identity %s: version %d", self.spiffe_id, self.version)
        for listener in self._listeners:
            try:
                listener(before, material)
            except Exception:
                log.exception("%r failed", listener)

    def _tell_of_expiry(self, now: float) -> None:
        pair = self.current.pair
        if pair is None:
            return
        leaf = pair.leaf
        left = leaf.not_after - now
        said = ""
        if left <= 0 or now < leaf.not_before:
            said = f"is {leaf.validity(now)}"
        elif left < _NEARLY * (leaf.not_after - leaf.not_before):
            said = "has not been renewed"
        if said and f"{leaf.serial} {said}" != self._said:
            self._said = f"{leaf.serial} {said}"
            end = datetime.fromtimestamp(leaf.not_after, UTC).isoformat()
            log.warning("the certificate of %s %s (valid until %s)", self.spiffe_id, said, end)

    def __repr__(self) -> str:
        return f"Identity({self.spiffe_id or 'no SPIFFE ID'}, version={self.version})"


def _material(certificate: bytes, key: bytes, ca: bytes) -> Material:
    pair: Any = KeyPair.of(certificate, key or certificate) if certificate else None
    return Material(pair, TrustBundle.of(ca) if ca else None)


def _after_fork() -> None:
    for identity in list(_every):
        identity._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
