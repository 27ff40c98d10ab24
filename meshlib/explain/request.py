"""A request given as text, made into the neutral head that calls are decided by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, quote, urlsplit

from meshlib.model.request import RequestHead

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"  # everything an HTTP client leaves as it is


def head_from(method: str, url: str, headers: HeaderInput) -> RequestHead:
    """The head an HTTP client would make: the host in lower case, without the scheme's default port; a `host` header
    takes its place. Raises ValueError for what is no request.
    """
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"{method!r} is not a method")
    parts = _split(url)
    items = headers.items() if isinstance(headers, Mapping) else headers
    pairs = [_header(name, value) for name, value in items]
    host = next((value for name, value in pairs if name == b"host"), _authority(parts).encode("ascii"))
    raw = [(b"host", host), *(pair for pair in pairs if pair[0] != b"host")]
    return RequestHead(method.upper(), parts.scheme, host.decode("latin-1"), _target(url, parts), raw)


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"{url!r} is not an absolute URL like http://payments/charge")
    if not parts.netloc.isascii():
        raise ValueError(f"the host of {url!r} is not ASCII: write it as it goes over the wire (xn--...)")
    return parts


def _authority(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return host if port is None or port == _DEFAULT_PORTS.get(parts.scheme) else f"{host}:{port}"


def _target(url: str, parts: SplitResult) -> str:
    asks = "?" in url.partition("#")[0]  # an empty query is one too, and HTTP clients send it
    query = f"?{quote(parts.query, _URL_SAFE)}" if asks else ""
    return (quote(parts.path, _URL_SAFE) or "/") + query


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    if any(character in value for character in "\r\n\0"):
        raise ValueError(f"the value of {name!r} holds a line break or a zero")
    try:
        return name.lower().encode("ascii"), value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of {name!r} is not Latin-1, which is all a header can say") from None
