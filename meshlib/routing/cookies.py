"""Cookies as Envoy reads them from requests."""

from __future__ import annotations

from meshlib.model.request import RequestHead


def cookie_value(head: RequestHead, name: str) -> str:
    """The first cookie of that name, without surrounding quotes; empty when there is none."""
    return find_cookie(head, name) or ""


def find_cookie(head: RequestHead, name: str) -> str | None:
    """The same, None when there is none."""
    for header in head.get_all("cookie"):
        for cookie in header.split(";"):
            key, equals, value = cookie.lstrip(" ").partition("=")
            if equals and key == name:
                quoted = len(value) >= 2 and value[0] == value[-1] == '"'
                return value[1:-1] if quoted else value
    return None
