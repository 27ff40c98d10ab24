"""Cookies read only from responses that set some.

For each response httpx makes a `urllib` request and an e-mail message, to hand both to `http.cookiejar`: about as much
work as all the mesh does for a small call, and nearly always for no cookie at all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshlib.http.library import Library

_SETTERS = (b"set-cookie", b"set-cookie2")
_LENGTHS = frozenset(map(len, _SETTERS))


def patient_cookies(lib: Library, base: Any) -> property:
    """The `cookies` of a client class, theirs in all but that."""
    kind, theirs = _patient(lib.module.Cookies), base.cookies  # a property of every httpx client

    def get(self: Any) -> Any:
        """The client's cookies; they live in the jar the library keeps."""
        jar = theirs.fget(self).jar
        ours = self.__dict__.get("_patient_cookies")
        if ours is None or ours.jar is not jar:
            ours = self.__dict__["_patient_cookies"] = kind(jar)
        return ours

    return property(get, theirs.fset)


@lru_cache(maxsize=2)
def _patient(base: type[Any]) -> type[Any]:
    def extract_cookies(self: Any, response: Any) -> None:
        """Loads cookies of the response's `Set-Cookie` headers."""
        for name, _ in response.headers.raw:
            if len(name) in _LENGTHS and name.lower() in _SETTERS:
                base.extract_cookies(self, response)
                return

    return type(base.__name__, (base,), {"__module__": base.__module__, "extract_cookies": extract_cookies})
