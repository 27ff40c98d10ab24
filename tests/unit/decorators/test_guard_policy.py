"""What a guard is told, and what it refuses."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.context import CallContext
from meshlib.decorators.policy import GuardPolicy, split_service

MESH = Mesh.static({"payments": []})


@pytest.mark.parametrize(
    "service, path, split",
    [
        ("payments", None, ("http", "payments", "/")),
        ("payments:8080", "/charge", ("http", "payments:8080", "/charge")),
        ("https://payments/v2?a=b", None, ("https", "payments", "/v2?a=b")),
        ("https://payments/v2", "/v3", ("https", "payments", "/v3")),
        ("[::1]:80", None, ("http", "[::1]:80", "/")),
    ],
)
def test_a_service_is_a_name_or_a_url(service: str, path: str | None, split: tuple[str, str, str]) -> None:
    assert split_service(service, path) == split


@pytest.mark.parametrize("service, path, words", [("", None, "names no service"), ("payments", "charge", "begin with")])
def test_what_is_neither_says_so(service: str, path: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MESH.guard(service, path=path)


def policy(**changes: Any) -> GuardPolicy:
    told: dict[str, Any] = {"headers": {}, "classify": None, "exclude": (), "replayable": True, **changes}
    return GuardPolicy("http", "payments", "/charge", "POST", **told)


def test_the_request_a_call_stands_for() -> None:
    context = CallContext(None, "abc", ((b"traceparent", b"00-1"), (b"x-request-id", b"abc")))
    head = policy(headers={"X-Request-Id": "mine", "x-tenant": "gold"}).head(context, (), {})
    assert (head.method, head.scheme, head.authority, head.path) == ("POST", "http", "payments", "/charge")
    assert head.headers == [
        (b"host", b"payments"),
        (b"x-request-id", b"mine"),
        (b"x-tenant", b"gold"),
        (b"traceparent", b"00-1"),
    ]


def test_headers_may_follow_from_the_arguments() -> None:
    def headers(user: str, *, tenant: str) -> dict[str, str]:
        return {"x-user": user, "x-tenant": tenant}

    head = policy(headers=headers).head(CallContext(), ("ann",), {"tenant": "gold"})
    assert (head.get("x-user"), head.get("x-tenant")) == ("ann", "gold")


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Thing:
    def method(self) -> int:
        return 1


@pytest.mark.parametrize(
    "thing, words",
    [
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (Thing, "is a class"),
        (classmethod(Thing.method), "under @classmethod, not above it"),
        (property(Thing.method), "under @property, not above it"),
        (3, "this is a int"),
    ],
)
def test_what_cannot_be_guarded_says_why(thing: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        MESH.guard("payments")(thing)


def test_a_guarded_function_is_still_itself() -> None:
    @MESH.guard("payments")
    def charge(amount: int, *, currency: str = "EUR") -> str:
        """Charge."""
        return f"{amount} {currency}"

    assert (charge.__name__, charge.__doc__) == ("charge", "Charge.")
    assert charge(3, currency="CHF") == "3 CHF"


def test_methods_and_partials_can_be_guarded() -> None:
    class Payments:
        rate = 2

        @MESH.guard("payments")
        def charge(self, amount: int) -> int:
            return amount * self.rate

        @staticmethod
        @MESH.guard("payments")
        def plain(amount: int) -> int:
            return amount

        @classmethod
        @MESH.guard("payments")
        def of_class(cls, amount: int) -> int:
            return amount * cls.rate

    assert (Payments().charge(3), Payments.plain(3), Payments.of_class(3)) == (6, 3, 6)
    assert MESH.guard("payments")(functools.partial(int, "ff", base=16))() == 255


async def test_coroutine_functions_of_every_kind_are_awaited() -> None:
    class Callable:
        async def __call__(self) -> int:
            return 1

    async def plain(value: int) -> int:
        return value

    guard = MESH.guard("payments")
    assert [await guard(Callable())(), await guard(functools.partial(plain, 2))(), await guard(plain)(3)] == [1, 2, 3]


def test_a_coroutine_out_of_a_sync_function_is_a_mistake_that_is_named() -> None:
    async def charge() -> int:
        return 1

    def sneak() -> object:
        return charge()

    with pytest.raises(TypeError, match="guard the async function itself"):
        MESH.guard("payments")(sneak)()
