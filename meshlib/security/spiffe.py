"""SPIFFE IDs (the SPIFFE ID specification, sections 2.1 to 2.4), and which of them are welcome.

An ID names a workload: `spiffe://<trust domain>/<path>`. Nothing is normalized: what does not follow the specification
to the letter (upper case, a port, a query, an encoded character, a dot segment) is not an ID, so two spellings of one
ID cannot exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SpiffeId", "SpiffeIdError", "SpiffePattern", "trust_domain"]

SCHEME = "spiffe://"
_MAX_BYTES = 2048
_MAX_TRUST_DOMAIN = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+\Z")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+\Z")


class SpiffeIdError(ValueError):
    """A text is no SPIFFE ID; the message says which part is wrong."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://trust_domain/path`; `path` begins with a slash, or is empty (the trust domain itself)."""

    trust_domain: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse, or raise SpiffeIdError."""
        if len(text) > _MAX_BYTES:
            raise SpiffeIdError(f"longer than {_MAX_BYTES} bytes")
        if not text.startswith(SCHEME):
            raise SpiffeIdError(f"{_shown(text)} does not begin with {SCHEME}")
        domain, slash, path = text.removeprefix(SCHEME).partition("/")
        return cls(trust_domain(domain), _path(path) if slash else "")

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


@dataclass(frozen=True, slots=True)
class SpiffePattern:
    """One ID (`spiffe://prod/ns/a/sa/b`), or all below a path (`spiffe://prod/ns/a/*`), or a trust domain's
    (`spiffe://prod/*`). The star stands for one segment or more, at the end only.
    """

    id: SpiffeId
    below: bool = False

    @classmethod
    def parse(cls, text: str) -> SpiffePattern:
        """Parse, or raise SpiffeIdError."""
        below = text.endswith("/*")
        return cls(SpiffeId.parse(text.removesuffix("/*") if below else text), below)

    def matches(self, peer: SpiffeId) -> bool:
        """Whether the pattern speaks of this ID."""
        if not self.below:
            return peer == self.id
        return peer.trust_domain == self.id.trust_domain and peer.path.startswith(f"{self.id.path}/")

    def __str__(self) -> str:
        return f"{self.id}/*" if self.below else str(self.id)


def sole_id(uris: Iterable[str]) -> SpiffeId:
    """The ID of an X.509-SVID (section 2): its only URI subjectAltName. Raises SpiffeIdError for none or several."""
    found = tuple(uris)
    if len(found) != 1:
        raise SpiffeIdError(f"a certificate must have exactly one URI subjectAltName, this one has {len(found)}")
    return SpiffeId.parse(found[0])


def trust_domain(name: str) -> str:
    """The name, if it may be one; raises SpiffeIdError."""
    if not name:
        raise SpiffeIdError("the trust domain is empty")
    if len(name) > _MAX_TRUST_DOMAIN:
        raise SpiffeIdError(f"the trust domain is longer than {_MAX_TRUST_DOMAIN} bytes")
    if not _TRUST_DOMAIN.match(name):
        raise SpiffeIdError(f"trust domain {_shown(name)} may hold a-z, 0-9, '.', '-' and '_' only")
    return name


def _path(path: str) -> str:
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise SpiffeIdError(f"path {_shown(path)} has an empty segment or one of dots")
        if not _SEGMENT.match(segment):
            raise SpiffeIdError(f"path segment {_shown(segment)} may hold letters, digits, '.', '-' and '_' only")
    return f"/{path}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
