"""The neutral head of a WSGI request: read from the environ when asked, because most requests are asked for little.

PEP 3333 hands over a path that is decoded, and so does not say which path was on the wire (`%2F` and `/` are the same
in it). What decides about a request must see the wire's: `REQUEST_URI` (uWSGI, mod_wsgi, waitress) or `RAW_URI`
(gunicorn) has it. It is believed only if it decodes to the path the application gets: a middleware outside may have
rewritten that, and then the application's is the one that counts, encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from meshlib.model.request import RawHeaders, RequestHead, ServedHead

Environ = Mapping[str, Any]

_UNPREFIXED = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_SAFE = "/:@!$&'()*+,;=~"  # what RFC 3986 allows in a path beside letters, digits and -._


class EnvironHead(RequestHead):
    """A request head over an environ. Headers sent twice are joined by commas, by the server."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Environ) -> None:
        super().__init__(
            environ["REQUEST_METHOD"], environ["wsgi.url_scheme"], environ.get("HTTP_HOST", ""), raw_target(environ)
        )
        self._environ = environ

    def get_all(self, name: str) -> list[str]:
        """Every value of a header (`name` in lower case) or pseudo header; an empty list when missing."""
        if name.startswith(":"):
            return super().get_all(name)
        value = self._environ.get(_UNPREFIXED.get(name) or f"HTTP_{name.upper().replace('-', '_')}")
        return [] if value is None else [value]

    @property
    def remote_address(self) -> str:
        """The connection's other end, as the server tells it."""
        return str(self._environ.get("REMOTE_ADDR", ""))

    def like(self, path: str, headers: RawHeaders) -> RequestHead:
        """The same request with another path and other headers, no longer over the environ."""
        return ServedHead(self.method, self.scheme, self.authority, path, headers, self.remote_address)

    def look_for(self, names: Mapping[bytes, str]) -> None:
        """There is nothing to gain: the environ finds a header at once."""

    @property
    def headers(self) -> RawHeaders:
        """All headers as the wire's pairs, in no order that means anything."""
        return [
            (name.encode("latin-1"), value.encode("latin-1"))
            for key, value in self._environ.items()
            if (name := _header_name(key)) and isinstance(value, str)
        ]

    @headers.setter
    def headers(self, value: RawHeaders) -> None:
        """What `RequestHead` sets is not kept: the environ has them."""


def marked_environ(head: RequestHead) -> dict[str, str]:
    """The headers of a request that filters have changed, as an environ has them: those of one name joined."""
    names = {name.lower().decode("latin-1") for name, _ in head.headers}
    return {_UNPREFIXED.get(name) or f"HTTP_{name.upper().replace('-', '_')}": head.get(name) or "" for name in names}


def raw_target(environ: Environ) -> str:
    """The request target as the client sent it: raw path and query."""
    decoded = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    path = _wire_path(environ, decoded)
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def _wire_path(environ: Environ, decoded: str) -> str:
    uri = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    path = uri.partition("?")[0].partition("#")[0]
    if "://" in path and not path.startswith("/"):  # absolute form, as sent to proxies
        path = "/" + path.partition("://")[2].partition("/")[2]
    if path and path == decoded and "%" not in path:
        return path
    if path and unquote_to_bytes(path) == decoded.encode("latin-1"):
        return path
    return quote(decoded.encode("latin-1"), safe=_SAFE) or "/"


def _header_name(key: str) -> str:
    if key.startswith("HTTP_"):
        return key[5:].replace("_", "-").lower()
    return {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}.get(key, "")
