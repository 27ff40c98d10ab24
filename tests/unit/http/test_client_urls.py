"""URLs read by the ready clients are the library's own, to the last attribute; what is not plain is left to it."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.http.library import Library, library
from meshlib.http.urls import UrlReader

READERS = {name: UrlReader(library(name)) for name in ("httpx", "httpx2")}
PIECES = st.sampled_from(
    [
        "/",
        "//",
        ".",
        "..",
        "a",
        "Z",
        "0",
        "%20",
        "%",
        "%zz",
        "?",
        "=",
        "&",
        "#",
        ":",
        "@",
        "é",
        " ",
        "\n",
        "{",
        '"',
        "~",
        "*",
        ";",
        "+",
    ]
)
TAILS = st.lists(PIECES, max_size=9).map("".join)
HOSTS = st.sampled_from(
    [
        "payments",
        "payments.shop",
        "PAYMENTS",
        "a_b",
        "10.0.0.1",
        "999.1.1.1",
        "[::1]",
        "münchen",
        "u:p@h",
        "",
        "a..b",
        "x-",
    ]
)
PORTS = st.sampled_from(["", ":", ":80", ":443", ":8080", ":080", ":0", ":99999", ":x", ":123456"])


@pytest.fixture(params=["httpx", "httpx2"])
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def theirs(make: Any) -> Any:
    """The URL the library makes, None where it refuses."""
    try:
        return make()
    except Exception:  # noqa: BLE001  whatever it raises, ours must not have made a URL
        return None


@pytest.mark.parametrize("name", READERS)
@given(scheme=st.sampled_from(["http", "https", "HTTP", "ws", "unix", ""]), host=HOSTS, port=PORTS, tail=TAILS)
@example("http", "payments", "", "")
@example("http", "payments", "", "/./a")
@example("http", "payments", "", "/a/..")
@example("https", "payments", ":443", "/a?")
def test_an_absolute_url_is_what_the_library_makes_of_it(
    name: str, scheme: str, host: str, port: str, tail: str
) -> None:
    text = f"{scheme}://{host}{port}{tail}"
    ours = READERS[name].read(text)
    if ours is not None:
        made = import_module(name).URL(text)
        assert vars(ours) == vars(made)
        assert (ours.raw_path, ours.netloc, str(ours)) == (made.raw_path, made.netloc, str(made))


@pytest.mark.parametrize("name", READERS)
@given(
    base=st.sampled_from(
        [
            "http://payments",
            "https://payments:8443/v1",
            "http://u:p@h/x",
            "http://h/a?b=/",
            "http://10.0.0.1/é",
            "http://[::1]:1",
            "",
        ]
    ),
    tail=TAILS,
)
@example("http://payments", "/")
@example("http://payments", "")
@example("http://payments", "?x=1")
@example("https://payments:8443/v1", "..")
def test_a_relative_url_is_joined_as_the_library_does(name: str, base: str, tail: str) -> None:
    module = import_module(name)
    with module.Client(base_url=base, transport=module.MockTransport(print)) as client:
        ours = READERS[name].join(client.base_url, tail)
        if ours is not None:
            made = client._merge_url(tail)
            assert vars(ours) == vars(made)


@pytest.mark.parametrize(
    "url", ["http://payments/charge/42?x=1&y=%20z", "https://a.b-c.svc.cluster.local:8443/", "http://p"]
)
def test_plain_urls_need_no_help(name: str, url: str) -> None:
    assert READERS[name].read(url) is not None


@pytest.mark.parametrize("url", ["/charge/42", "charge/42?x=%20", "/", ""])
def test_plain_paths_need_no_help(name: str, url: str) -> None:
    base = import_module(name).URL("http://payments/v1/")
    assert READERS[name].join(base, url) is not None


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://münchen/", "http://a/b#c", "http://a/ b", "http://a:80/", "mailto:a@b"]
)
def test_others_are_left_to_the_library(name: str, url: str) -> None:
    assert READERS[name].read(url) is None


class KeptOtherwise:
    """A URL of a version that does not keep its parts as we know."""

    def __init__(self, url: str) -> None:
        self._parts = url


def test_a_library_that_keeps_its_urls_otherwise_is_not_trusted() -> None:
    module: Any = SimpleNamespace(URL=KeptOtherwise, Request=None, Response=None, ByteStream=None)
    assert not UrlReader(Library("httpx", module)).trusted


def test_installed_libraries_are(name: str) -> None:
    """A canary: when it fails, a new version of the library makes calls dearer; nothing is wrong with them."""
    assert READERS[name].trusted
