"""Headers of a request, however they are asked for: the first ask looks, the second makes an index."""

from __future__ import annotations

import itertools

import pytest

from meshlib.model.request import RequestHead

HEADERS = [(b"Host", b"a"), (b"X-Tag", b"1"), (b"accept", b"*/*"), (b"x-tag", b"\xe9"), (b"\xff", b"odd")]
EXPECTED = {
    "host": ["a"],
    "x-tag": ["1", "é"],
    "accept": ["*/*"],
    "missing": [],
    "\xff": ["odd"],
    "€": [],
    ":path": ["/p?q"],
    ":authority": ["a"],
    ":nothing": [],
}


def head(headers: list[tuple[bytes, bytes]], authority: str = "a") -> RequestHead:
    return RequestHead("GET", "http", authority, "/p?q", headers)


@pytest.mark.parametrize("first, second", list(itertools.permutations(EXPECTED, 2)))
def test_the_order_of_asking_changes_nothing(first: str, second: str) -> None:
    request = head(HEADERS)
    for name in (first, second, first, second):
        assert request.get_all(name) == EXPECTED[name]


def test_several_values_are_joined_as_envoy_joins_them() -> None:
    assert head(HEADERS).get("x-tag") == "1,é"
    assert head(HEADERS).get("missing") is None


@pytest.mark.parametrize("warm", [[], ["accept"]])
def test_a_request_without_host_has_its_authority(warm: list[str]) -> None:
    request = head(HEADERS[1:], "b:80")
    for name in warm:
        request.get_all(name)
    assert request.get("host") == "b:80"
    assert head([], "").get("host") is None


@pytest.mark.parametrize("name", EXPECTED)
def test_headers_that_were_looked_for_and_others_are_the_same(name: str) -> None:
    request = head(HEADERS)
    request.look_for({b"x-tag": "x-tag", b"missing": "missing"})
    assert request.get_all(name) == EXPECTED[name]
