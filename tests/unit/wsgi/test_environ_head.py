"""The head of a WSGI request: headers by their keys, and the path that was on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.http.environ import EnvironHead


def environ(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "https",
        "wsgi.version": (1, 0),
        "HTTP_HOST": "payments:8080",
        "HTTP_X_TAG": "a,b",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "x",
        **changes,
    }


def test_headers_are_found_by_name_and_as_a_list() -> None:
    head = EnvironHead(environ())
    assert (head.method, head.scheme, head.authority) == ("GET", "https", "payments:8080")
    assert (head.get("x-tag"), head.get("content-type"), head.get("content-length")) == ("a,b", "text/plain", "3")
    assert (head.get("missing"), head.get("server-name"), head.get("host")) == (None, None, "payments:8080")
    assert head.get(":authority") == "payments:8080"
    assert sorted(head.headers) == [
        (b"content-length", b"3"),
        (b"content-type", b"text/plain"),
        (b"host", b"payments:8080"),
        (b"x-tag", b"a,b"),
    ]


@pytest.mark.parametrize(
    "told, target",
    [
        ({"PATH_INFO": "/a b"}, "/a%20b"),
        ({"PATH_INFO": "/a b", "QUERY_STRING": "q=%2F"}, "/a%20b?q=%2F"),
        ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2Fb?q"}, "/a%2Fb"),
        ({"PATH_INFO": "/a/b", "REQUEST_URI": "/a%2fb#f"}, "/a%2fb"),
        ({"PATH_INFO": "/a/b", "REQUEST_URI": "http://payments/a%2Fb"}, "/a%2Fb"),
        ({"PATH_INFO": "/", "REQUEST_URI": "http://payments"}, "/"),
        ({"SCRIPT_NAME": "/shop", "PATH_INFO": "/a/b", "RAW_URI": "/shop/a%2Fb"}, "/shop/a%2Fb"),
        ({"PATH_INFO": "/rewritten", "RAW_URI": "/secret"}, "/rewritten"),
        ({"PATH_INFO": "/100%", "RAW_URI": "/100%"}, "/100%"),
        ({"PATH_INFO": "/100%"}, "/100%25"),
        ({"PATH_INFO": "/caf\xc3\xa9", "RAW_URI": "/caf%C3%A9"}, "/caf%C3%A9"),
        ({"PATH_INFO": "/caf\xc3\xa9"}, "/caf%C3%A9"),
        ({"PATH_INFO": ""}, "/"),
        ({}, "/"),
        ({"PATH_INFO": "*", "RAW_URI": "*"}, "*"),
    ],
)
def test_the_path_is_the_one_on_the_wire_if_it_is_the_applications(told: dict[str, str], target: str) -> None:
    head = EnvironHead(environ(**told))
    query = told.get("QUERY_STRING")
    assert head.path == target
    assert head.query == (query or "")
