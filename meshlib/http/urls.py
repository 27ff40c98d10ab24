"""Plain URLs read at once.

httpx checks a URL character by character and normalizes each of its parts: about as much work as all the mesh does for
a small call, and for most URLs a program calls it changes nothing. Those, told by one regular expression, become the
library's `URL` directly; every other goes the library's own way. Where a version of the library keeps its URLs
differently than we know, all of them do.
"""

from __future__ import annotations

import re
from typing import Any

from meshlib.http.library import Library

_PATH = r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9\-._~!$&'()*+,;=:@/]*)*"
_QUERY = r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9\-._~!$&'()*+,;=:@/?]*)*"
# A host that is a name (the first letter sees to that) in lower case: nothing to encode, nothing to check.
_ABSOLUTE = re.compile(
    rf"(https?)://([a-z][a-z0-9._-]*)(?::([1-9][0-9]{{0,4}}))?((?:/{_PATH})?)(?:\?({_QUERY}))?"
).fullmatch
# Of a relative URL the first segment holds no colon (that would be a scheme); what follows is as above.
_RELATIVE = re.compile(rf"/?((?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/{_PATH})?)?)(?:\?({_QUERY}))?").fullmatch
_LONGEST = 8192  # longer ones are the library's to judge
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SAMPLES = (
    "http://payments",
    "http://payments/",
    "http://payments:8080/charge/42",
    "https://payments.shop.svc/a/b.c?x=1&y=%20z",
    "http://payments/%7euser?",
)
_JOINED = (
    ("http://payments", "/charge"),
    ("http://payments/v1/", "charge/4?x=1"),
    ("https://payments:8443/v1", "/a/b"),
)


class UrlReader:
    """The library's URLs, made from text. `trusted` False: this version keeps its URLs in a way we do not know."""

    def __init__(self, lib: Library) -> None:
        self._type: Any = lib.module.URL
        self._parts: Any = None
        self.trusted = self._check()

    def read(self, url: str) -> Any:
        """The absolute URL a text says, None when the library must read it."""
        found = _ABSOLUTE(url) if len(url) <= _LONGEST else None
        if found is None:
            return None
        scheme, host, port, path, query = found.groups()
        if "/." in path or port == _DEFAULT_PORTS[scheme]:
            return None
        return self._made(self._parts(scheme, "", host, None if port is None else int(port), path, query, None))

    def join(self, base: Any, url: str) -> Any:
        """A relative URL under a client's base URL, None when the library must join them."""
        found = _RELATIVE(url) if len(url) <= _LONGEST else None
        if found is None:
            return None
        parts = base._uri_reference
        if not parts.host or parts.userinfo or parts.query is not None or parts.fragment is not None:
            return None
        tail, query = found.groups()
        path = (parts.path or "/") + tail
        return None if "/." in path else self._made(parts._replace(path=path, query=query))

    def _made(self, parts: Any) -> Any:
        url = self._type.__new__(self._type)
        url._uri_reference = parts
        return url

    def _check(self) -> bool:
        """Whether URLs made here are those the library makes, to the last attribute."""
        try:
            self._parts = type(self._type(_SAMPLES[0])._uri_reference)
            pairs = [(self.read(sample), self._type(sample)) for sample in _SAMPLES]
            for base, url in _JOINED:
                client_base = self._type(base if base.endswith("/") else f"{base}/")
                pairs.append((self.join(client_base, url), self._type(f"{client_base}{url.lstrip('/')}")))
            return all(vars(ours) == vars(theirs) for ours, theirs in pairs)
        except (AttributeError, TypeError, ValueError):
            return False
