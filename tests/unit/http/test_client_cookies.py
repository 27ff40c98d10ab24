"""Ready clients read cookies only from responses that set some, and are the library's own in everything else."""

from __future__ import annotations

from http.cookiejar import CookieJar
from importlib import import_module
from typing import Any

import pytest

from meshlib.http.clients import client_types
from meshlib.http.library import LibraryName, library

HOST = "http://payments"


class Answers:
    """A transport that answers with the headers of its turn and keeps the requests."""

    def __init__(self, module: Any, *headers: dict[str, str]) -> None:
        self.requests: list[Any] = []
        turns = iter(headers)

        def answer(request: Any) -> Any:
            self.requests.append(request)
            return module.Response(200, headers=next(turns))

        self.transport = module.MockTransport(answer)


@pytest.fixture(params=["httpx", "httpx2"])
def name(request: pytest.FixtureRequest) -> LibraryName:
    chosen: LibraryName = request.param
    return chosen


def client(name: LibraryName, answers: Answers, **options: Any) -> Any:
    kind, _ = client_types(library(name))
    return kind(transport=answers.transport, base_url=HOST, **options)


def test_it_is_the_librarys_own_client(name: LibraryName) -> None:
    module = import_module(name)
    sync, aio = client_types(library(name))
    assert issubclass(sync, module.Client)
    assert issubclass(aio, module.AsyncClient)
    assert issubclass(type(client(name, Answers(module)).cookies), module.Cookies)


def test_a_cookie_that_was_set_comes_back(name: LibraryName) -> None:
    answers = Answers(import_module(name), {"Set-Cookie": "session=1; Path=/"}, {})
    with client(name, answers) as sender:
        first = sender.get("/")
        sender.get("/")
        assert first.cookies["session"] == "1"
        assert sender.cookies["session"] == "1"
    assert [request.headers.get("cookie") for request in answers.requests] == [None, "session=1"]


async def test_a_cookie_that_was_set_comes_back_on_asyncio(name: LibraryName) -> None:
    answers = Answers(import_module(name), {"set-cookie": "session=1"}, {})
    _, kind = client_types(library(name))
    async with kind(transport=answers.transport, base_url=HOST) as sender:
        await sender.get("/")
        await sender.get("/")
    assert answers.requests[1].headers["cookie"] == "session=1"


def test_cookies_can_be_given_and_replaced(name: LibraryName) -> None:
    answers = Answers(import_module(name), {}, {"set-cookie": "c=3"}, {})
    with client(name, answers, cookies={"a": "1"}) as sender:
        sender.get("/")
        sender.cookies = {"b": "2"}
        sender.get("/")
        sender.get("/")
    assert [request.headers["cookie"] for request in answers.requests] == ["a=1", "b=2", "b=2; c=3"]


class CountingJar(CookieJar):
    """Counts how often it was asked to read a response."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def extract_cookies(self, response: Any, request: Any) -> None:
        self.read += 1
        super().extract_cookies(response, request)


def test_a_jar_of_the_users_is_kept_and_left_alone_by_responses_without_cookies(name: LibraryName) -> None:
    jar = CountingJar()
    answers = Answers(import_module(name), {"x-a": "1"}, {"Set-Cookie": "c=3"})
    with client(name, answers, cookies=jar) as sender:
        sender.get("/")
        assert jar.read == 0
        sender.get("/")
        assert sender.cookies.jar is jar
    assert jar.read == 1
    assert [cookie.name for cookie in jar] == ["c"]
