"""The ready clients: the library's own, spared work that changes nothing.

A shortcut here stands for steps of the library whose result we know: reading cookies from a response that sets none,
taking a plain URL apart, copying the client's headers three times over. Each is taken only where the library would
come to the same request, which is tried out once per process against the library itself: a version that differs keeps
its own way, and so does a method that something else (an instrumentation) has put its own in place of.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import Any

from meshlib.http.cookies import patient_cookies
from meshlib.http.errors import check_host
from meshlib.http.library import Library
from meshlib.http.urls import UrlReader

_BODILESS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))  # those the library gives no Content-Length
_BODY = ("content", "data", "files", "json", "params", "cookies")
_OPTIONS = frozenset((*_BODY, "headers", "timeout", "extensions"))  # of any other we do not know what it does
_SAMPLES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "http://payments/charge/42?x=1", {}),
    ("GET", "/charge", {"headers": {"x-b": "2", "ACCEPT": "text/html"}, "timeout": 2.0}),
    ("DELETE", "charge/7", {"headers": [("Host", "other")], "extensions": {"target": b"/x"}}),
)


@lru_cache(maxsize=2)
def client_types(lib: Library) -> tuple[type[Any], type[Any]]:
    """`Client` and `AsyncClient` of a library, theirs in all but the work that is left out."""
    urls = UrlReader(lib)
    types = [_client(base, lib, urls) for base in (lib.module.Client, lib.module.AsyncClient)]
    return types[0], types[1]


def _client(base: type[Any], lib: Library, urls: UrlReader) -> type[Any]:
    members = {"__module__": base.__module__, "__doc__": base.__doc__, "cookies": patient_cookies(lib, base)}
    if urls.trusted and lib.wrote(getattr(base, "_merge_url", None)):
        members["_merge_url"] = _merging(base, urls)
    plain = type(base.__name__, (base,), members)
    quick = type(base.__name__, (base,), members | {"build_request": _building(base, lib)})
    return quick if lib.wrote(base.build_request) and _builds_alike(quick, base, lib) else plain


def _merging(base: Any, urls: UrlReader) -> Any:
    theirs = base._merge_url

    def _merge_url(self: Any, url: Any) -> Any:
        found = (urls.read(url) or urls.join(self.base_url, url)) if type(url) is str else None
        return found or theirs(self, url)

    return _merge_url


def _building(base: Any, lib: Library) -> Any:
    theirs, empty = base.build_request, lib.ByteStream(b"")
    request_type, headers_type, timeout_type = lib.Request, lib.module.Headers, lib.module.Timeout
    unset = lib.module.USE_CLIENT_DEFAULT

    @wraps(theirs)
    def build_request(self: Any, method: str, url: Any, **options: Any) -> Any:
        where = host = None
        if method in _BODILESS and base.build_request is theirs and _plain(self, options):
            where = self._merge_url(url)
            host = where.netloc
        if not host:
            try:
                return base.build_request(self, method, url, **options)
            except UnicodeError:
                check_host(lib, self._merge_url(url))
                raise
        given, timeout = options.get("extensions"), options.get("timeout", unset)
        extensions = {} if given is None else dict(given)
        if "timeout" not in extensions:
            extensions["timeout"] = (self.timeout if timeout is unset else timeout_type(timeout)).as_dict()
        headers = _headers(self, options.get("headers"), host, headers_type)
        request = request_type(method, where, headers=headers, stream=empty, extensions=extensions)
        request.read()  # so that its content can be looked at
        return request

    return build_request


def _plain(client: Any, options: dict[str, Any]) -> bool:
    """Whether a request has nothing but a URL, headers, a timeout and extensions."""
    if not options.keys() <= _OPTIONS:
        return False
    for name in _BODY:
        if options.get(name) is not None:
            return False
    return not client.params and not client.cookies


def _headers(client: Any, given: Any, host: bytes, make: Any) -> Any:
    """The client's headers and the request's own, with the host before them. Without any of its own they are those of
    the last request, as long as the client's stay what they were.
    """
    if given is not None:
        return _with_host(client._merge_headers(given), host, make)
    raw = client.headers.raw
    last = client.__dict__.get("_last_headers")
    if last is None or last[1] != host or last[0] != raw:
        last = client.__dict__["_last_headers"] = (raw, host, _with_host(client.headers, host, make))
    return last[2]


def _with_host(headers: Any, host: bytes, make: Any) -> Any:
    return headers if "host" in headers else make([(b"Host", host), *headers.raw])


def _builds_alike(ours: type[Any], theirs: type[Any], lib: Library) -> bool:
    """Whether requests built our way are those the library builds."""
    try:
        clients = [
            kind(base_url="http://payments/v1", headers={"x-a": "1"}, transport=lib.module.MockTransport(print))
            for kind in (ours, theirs)
        ]
        for method, url, options in _SAMPLES * 2:  # the second time with what the first has left behind
            mine, known = (client.build_request(method, url, **options) for client in clients)
            if _state(mine) != _state(known):
                return False
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _state(request: Any) -> dict[str, Any]:
    state = dict(vars(request))
    state["stream"] = (type(request.stream), b"".join(request.stream))
    state["url"], state["headers"] = str(request.url), request.headers.raw
    return state
