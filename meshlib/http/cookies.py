"""The library's clients, their cookies read only from responses that set some.

For each response httpx makes a `urllib` request and an e-mail message, to hand both to `http.cookiejar`: about as much
work as all the mesh does for a small call, and nearly always for no cookie at all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshlib.http.library import Library

_SETTERS = ("set-cookie", "set-cookie2")


@lru_cache(maxsize=2)
def client_types(lib: Library) -> tuple[type[Any], type[Any]]:
    """`Client` and `AsyncClient` of a library, theirs in all but the reading of cookies."""
    module = lib.module
    patient = _patient(module.Cookies)
    return _client(module.Client, patient), _client(module.AsyncClient, patient)


def _patient(base: type[Any]) -> type[Any]:
    def extract_cookies(self: Any, response: Any) -> None:
        """Loads cookies of the response's `Set-Cookie` headers."""
        headers = response.headers
        if any(name in headers for name in _SETTERS):
            base.extract_cookies(self, response)

    return type(base.__name__, (base,), {"__module__": base.__module__, "extract_cookies": extract_cookies})


def _client(base: type[Any], cookies: type[Any]) -> type[Any]:
    theirs: Any = base.cookies  # a property of every httpx client

    def get(self: Any) -> Any:
        """The client's cookies; they live in the jar the library keeps."""
        jar = theirs.fget(self).jar
        ours = self.__dict__.get("_patient_cookies")
        if ours is None or ours.jar is not jar:
            ours = self.__dict__["_patient_cookies"] = cookies(jar)
        return ours

    prop = property(get, theirs.fset)
    return type(base.__name__, (base,), {"__module__": base.__module__, "cookies": prop})
