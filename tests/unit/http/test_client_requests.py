"""Requests of the ready clients are those the library builds, whichever way they were built."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from meshlib.http.clients import client_types
from meshlib.http.library import LibraryName, library

CLIENTS: list[dict[str, Any]] = [
    {},
    {"base_url": "http://payments"},
    {"base_url": "https://payments:8443/v1/", "headers": {"x-team": "shop", "Accept": "text/html"}},
    {"base_url": "http://payments", "headers": [("Host", "other"), ("x-a", "1"), ("x-a", "2")], "timeout": 3.0},
    {"base_url": "http://payments", "params": {"p": "1"}},
    {"base_url": "http://payments", "cookies": {"c": "1"}},
    {"base_url": "http://user:secret@payments/"},
]
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "http://payments/charge/42?x=1", {}),
    ("GET", "/charge", {}),
    ("GET", "charge#part", {}),
    ("get", "/charge", {}),
    ("HEAD", "/a/../b", {}),
    ("OPTIONS", "/", {"timeout": None}),
    ("GET", "/", {"timeout": 2.0, "extensions": {"target": b"*"}}),
    ("GET", "/", {"timeout": 2.0, "extensions": {"timeout": {"read": 1.0}}}),
    ("GET", "/", {"headers": {"accept": "application/json", "X-New": "1"}}),
    ("GET", "/", {"headers": {"HOST": "elsewhere"}}),
    ("GET", "/", {"headers": [("content-length", "0"), ("transfer-encoding", "chunked")]}),
    ("GET", "/?a=1", {"params": {"b": "2"}}),
    ("GET", "/", {"params": {}}),
    ("DELETE", "/charge/7", {"content": b"why"}),
    ("POST", "/charge", {}),
    ("POST", "/charge", {"json": {"amount": 1}}),
    ("PUT", "/charge", {"content": b"whole"}),
    ("PATCH", "/charge", {"data": {"a": "b"}}),
    ("POST", "/charge", {"files": {"f": b"content"}, "headers": {"content-type": "multipart/form-data; boundary=x"}}),
    ("QUERY", "/charge", {}),
    ("BREW", "/pot", {}),
    ("GET", "/charge", {"no_such_option": None}),
]


@pytest.fixture(params=["httpx", "httpx2"])
def name(request: pytest.FixtureRequest) -> LibraryName:
    chosen: LibraryName = request.param
    return chosen


@pytest.fixture(params=[0, 1], ids=["blocking", "asyncio"])
def kinds(request: pytest.FixtureRequest, name: LibraryName) -> tuple[type[Any], type[Any]]:
    """Our client, and the library's."""
    module: Any = import_module(name)
    ours = client_types(library(name))
    return (ours[0], module.Client) if request.param == 0 else (ours[1], module.AsyncClient)


def pair(kinds: tuple[type[Any], type[Any]], **options: Any) -> tuple[Any, Any]:
    module: Any = import_module(kinds[1].__module__.partition(".")[0])
    transport = module.MockTransport(lambda request: module.Response(200))
    ours, theirs = (kind(transport=transport, **options) for kind in kinds)
    return ours, theirs


def built(client: Any, method: str, url: str, options: dict[str, Any]) -> Any:
    """All that a request is."""
    try:
        request = client.build_request(method, url, **options)
    except Exception as error:  # noqa: BLE001  then ours must raise the same
        return type(error), str(error)
    state = dict(vars(request))
    state |= {"url": str(request.url), "headers": request.headers.raw, "extensions": request.extensions}
    state["stream"] = (type(request.stream), b"".join(request.stream))
    return state


@pytest.mark.parametrize("options", CLIENTS, ids=str)
def test_every_request_is_the_librarys(kinds: tuple[type[Any], type[Any]], options: dict[str, Any]) -> None:
    ours, theirs = pair(kinds, **options)
    for request in REQUESTS * 2:  # the second time with what the first has left behind
        assert built(ours, *request) == built(theirs, *request), request


def test_headers_of_a_client_that_change_are_sent_as_they_are(kinds: tuple[type[Any], type[Any]]) -> None:
    ours, theirs = pair(kinds, base_url="http://payments")
    for change in (
        lambda client: client.headers.update({"x-a": "1"}),
        lambda client: client.headers.__setitem__("x-a", "2"),
        lambda client: client.headers.pop("accept"),
        lambda client: setattr(client, "headers", {"x-b": "3"}),
        lambda client: setattr(client, "base_url", "http://other:81/"),
        lambda client: setattr(client, "params", {"q": "1"}),
        lambda client: setattr(client, "params", {}),
        lambda client: client.cookies.set("c", "1"),
        lambda client: client.cookies.clear(),
        lambda client: setattr(client, "timeout", 7.0),
    ):
        assert built(ours, "GET", "/a", {}) == built(theirs, "GET", "/a", {})
        change(ours)
        change(theirs)
        assert built(ours, "GET", "/a", {}) == built(theirs, "GET", "/a", {})


def test_requests_share_nothing_that_can_be_changed(kinds: tuple[type[Any], type[Any]]) -> None:
    ours, _ = pair(kinds, base_url="http://payments")
    first = ours.build_request("GET", "/a")
    first.headers["x-only"] = "here"
    first.extensions["timeout"]["read"] = 1.0
    second = ours.build_request("GET", "/a")
    assert "x-only" not in second.headers
    assert "x-only" not in ours.headers
    assert second.extensions["timeout"]["read"] != 1.0


@pytest.fixture
def replaced(kinds: tuple[type[Any], type[Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """`build_request` of the library, replaced as instrumentation does it."""
    seen: list[str] = []
    theirs = kinds[1].build_request

    def build_request(self: Any, method: str, url: str, **options: Any) -> Any:
        seen.append(method)
        return theirs(self, method, url, **options)

    monkeypatch.setattr(kinds[1], "build_request", build_request)
    yield seen
    client_types.cache_clear()


def test_a_method_that_was_replaced_is_called(kinds: tuple[type[Any], type[Any]], replaced: list[str]) -> None:
    pair(kinds)[0].build_request("GET", "http://payments/")
    assert replaced == ["GET"]


def test_so_is_one_replaced_before_the_first_client(
    kinds: tuple[type[Any], type[Any]], replaced: list[str], name: LibraryName
) -> None:
    client_types.cache_clear()
    position = 1 if kinds[1].__name__.startswith("Async") else 0
    ours = client_types(library(name))[position]
    replaced.clear()
    pair((ours, kinds[1]))[0].build_request("GET", "http://payments/")
    assert replaced == ["GET"]


def test_the_shortcut_is_taken_with_the_installed_libraries(kinds: tuple[type[Any], type[Any]]) -> None:
    """A canary: when it fails, a new version of the library makes calls dearer; nothing is wrong with them."""
    assert {"build_request", "_merge_url", "cookies"} <= set(vars(kinds[0]))
    ours, _ = pair(kinds, base_url="http://payments")
    sending = ours.get("/charge")  # with every option that `get` hands on
    if inspect.iscoroutine(sending):
        asyncio.run(sending)
    assert "_last_headers" in vars(ours)


def test_it_is_documented_and_called_as_the_librarys(kinds: tuple[type[Any], type[Any]]) -> None:
    ours, theirs = kinds
    assert inspect.signature(ours.build_request) == inspect.signature(theirs.build_request)
    assert ours.build_request.__doc__ == theirs.build_request.__doc__
