"""A body that has arrived whole is read at once, and the response is left as the library leaves it."""

from __future__ import annotations

import gc
import gzip
import pickle
import weakref
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from meshlib.http.aio_client import WholeAsyncBody
from meshlib.http.library import LibraryName, library
from meshlib.http.responses import response_type
from meshlib.http.sync_client import WholeSyncBody

HEADERS: list[list[tuple[bytes, bytes]]] = [
    [],
    [(b"Content-Type", b"text/html; charset=latin-1")],
    [(b"Content-Encoding", b"gzip")],
    [(b"content-encoding", b"identity")],
]


@pytest.fixture(params=["httpx", "httpx2"])
def name(request: pytest.FixtureRequest) -> LibraryName:
    chosen: LibraryName = request.param
    return chosen


def whole_type(name: LibraryName, asynchronous: bool) -> type[Any]:
    module: Any = import_module(name)
    bases = (WholeAsyncBody, module.AsyncByteStream) if asynchronous else (WholeSyncBody, module.SyncByteStream)
    return type("Whole", bases, {})


def exchanged(
    name: LibraryName, own: bool, headers: list[tuple[bytes, bytes]], hook: Any = None, stream: bool = False
) -> Any:
    """A response as a client of the library hands it out; `own`: of our class."""
    module, whole = import_module(name), whole_type(name, False)
    kind: Any = response_type(library(name), whole, asynchronous=False) if own else module.Response
    body = gzip.compress(b"b\xf6dy") if (b"Content-Encoding", b"gzip") in headers else b"b\xf6dy"

    def answer(request: Any) -> Any:
        return kind(200, headers=headers, stream=whole(body))

    hooks = {"response": [hook]} if hook else {}
    with module.Client(transport=module.MockTransport(answer), event_hooks=hooks) as client:
        return client.send(client.build_request("GET", "http://payments/"), stream=stream)


async def exchanged_async(name: LibraryName, own: bool, headers: list[tuple[bytes, bytes]]) -> Any:
    module, whole = import_module(name), whole_type(name, True)
    kind: Any = response_type(library(name), whole, asynchronous=True) if own else module.Response
    body = gzip.compress(b"b\xf6dy") if (b"Content-Encoding", b"gzip") in headers else b"b\xf6dy"

    def answer(request: Any) -> Any:
        return kind(200, headers=headers, stream=whole(body))

    async with module.AsyncClient(transport=module.MockTransport(answer)) as client:
        return await client.get("http://payments/")


def state(response: Any) -> Any:
    kept = {
        key: value for key, value in vars(response).items() if key not in ("stream", "_request", "_elapsed", "_decoder")
    }
    return kept, response.content, response.text, response.num_bytes_downloaded, repr(response), response.elapsed.days


@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_it_is_left_as_the_library_leaves_it(name: LibraryName, headers: list[tuple[bytes, bytes]]) -> None:
    assert state(exchanged(name, True, headers)) == state(exchanged(name, False, headers))


@pytest.mark.parametrize("headers", HEADERS, ids=str)
async def test_so_it_is_on_asyncio(name: LibraryName, headers: list[tuple[bytes, bytes]]) -> None:
    assert state(await exchanged_async(name, True, headers)) == state(await exchanged_async(name, False, headers))


def test_a_response_that_is_read_is_nothing_for_the_collector(name: LibraryName) -> None:
    gc.disable()
    try:
        response = exchanged(name, True, [])
        gone = weakref.ref(response)
        del response
        assert gone() is None
    finally:
        gc.enable()


def test_a_hook_may_read_first(name: LibraryName) -> None:
    response = exchanged(name, True, [], hook=lambda response: response.read())
    assert state(response) == state(exchanged(name, False, [], hook=lambda response: response.read()))


def test_a_hook_may_take_the_encoding_away(name: LibraryName) -> None:
    def hook(response: Any) -> None:
        del response.headers["content-encoding"]

    headers = [(b"Content-Encoding", b"gzip")]
    assert gzip.decompress(exchanged(name, True, headers, hook).content) == b"b\xf6dy"


def test_a_stream_that_a_hook_put_around_ours_is_read(name: LibraryName) -> None:
    module: Any = import_module(name)

    class Upper(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            return (piece.upper() for piece in self._stream)

    def hook(response: Any) -> None:
        response.stream = Upper(response.stream)

    assert exchanged(name, True, [], hook).content == b"B\xf6DY"


def test_a_streamed_response_is_not_read(name: LibraryName) -> None:
    module: Any = import_module(name)
    response = exchanged(name, True, [], stream=True)
    with pytest.raises(module.ResponseNotRead):
        _ = response.content
    assert not response.is_closed
    assert list(response.iter_bytes()) == [b"b\xf6dy"]
    assert response.is_closed
    with pytest.raises(module.StreamConsumed):
        response.read()


def test_a_closed_response_is_not_read(name: LibraryName) -> None:
    module: Any = import_module(name)
    response = exchanged(name, True, [], stream=True)
    response.close()
    with pytest.raises(module.StreamClosed):
        response.read()


def test_a_pickled_response_is_the_librarys_own(name: LibraryName) -> None:
    module: Any = import_module(name)
    response = exchanged(name, True, [])
    copy = pickle.loads(pickle.dumps(response))  # noqa: S301  our own bytes
    assert type(copy) is module.Response
    assert (copy.content, copy.status_code, copy.is_closed) == (response.content, 200, True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_shortcut_is_taken_with_the_installed_libraries(name: LibraryName, asynchronous: bool) -> None:
    """A canary: when it fails, a new version of the library makes calls dearer; nothing is wrong with them."""
    lib = library(name)
    assert response_type(lib, whole_type(name, asynchronous), asynchronous=asynchronous) is not lib.Response


def test_a_version_that_reads_otherwise_keeps_its_own_way(name: LibraryName, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = library(name)

    class Response(lib.Response):  # type: ignore[misc, name-defined]
        def read(self) -> bytes:
            self.was_read = True
            content: bytes = super().read()
            return content

    monkeypatch.setattr(lib, "Response", Response)
    assert response_type(lib, whole_type(name, False), asynchronous=False) is Response
