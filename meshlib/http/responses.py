"""The library's responses, their bodies read at once where they have arrived whole.

Reading a body passes it through three generators, a decoder and a chunker. A body that is there already and is not
encoded comes out of them as it went in.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from meshlib.http.library import Library

_ENCODING = b"content-encoding"


def response_type(lib: Library, whole: type[Any], *, asynchronous: bool) -> Any:
    """`Response` of a library whose `read` (or `aread`) knows our streams of type `whole`; the library's own where
    this version of it does something else in reading than we know.
    """
    try:
        internals: Any = import_module(f"{lib.name}._client")
        bound = internals.BoundAsyncStream if asynchronous else internals.BoundSyncStream
        made = (_async_type if asynchronous else _sync_type)(lib.Response, whole, bound)
        own = lib.wrote(lib.Response.aread if asynchronous else lib.Response.read)
        return made if own and _reads_alike(lib, made, whole, asynchronous) else lib.Response
    except (ImportError, AttributeError, TypeError, ValueError):
        return lib.Response


def _sync_type(base: Any, whole: type[Any], bound: type[Any]) -> Any:
    theirs = base.read

    class Response(base):  # type: ignore[misc]
        def read(self) -> bytes:
            """Read and return the response content."""
            body = _at_hand(self, whole, bound)
            if body is None or base.read is not theirs:
                content: bytes = base.read(self)
                return content
            _take(self, body)
            self.close()
            _let_go(self)
            return body

        def __reduce_ex__(self, protocol: Any) -> Any:
            return object.__new__, (base,), self.__getstate__()

    return _named(Response, base)


def _async_type(base: Any, whole: type[Any], bound: type[Any]) -> Any:
    theirs = base.aread

    class Response(base):  # type: ignore[misc]
        async def aread(self) -> bytes:
            """Read and return the response content."""
            body = _at_hand(self, whole, bound)
            if body is None or base.aread is not theirs:
                content: bytes = await base.aread(self)
                return content
            _take(self, body)
            await self.aclose()
            _let_go(self)
            return body

        def __reduce_ex__(self, protocol: Any) -> Any:
            return object.__new__, (base,), self.__getstate__()

    return _named(Response, base)


def _named(made: Any, base: Any) -> Any:
    made.__qualname__, made.__module__, made.__doc__ = base.__qualname__, base.__module__, base.__doc__
    return made


def _at_hand(response: Any, whole: type[Any], bound: type[Any]) -> bytes | None:
    """The body, if it is all there, nobody has begun to read it, and nothing is to be decoded."""
    stream = response.stream
    if type(stream) is bound:
        stream = getattr(stream, "_stream", None)
    if type(stream) is not whole or response.is_stream_consumed or response.is_closed:
        return None
    for name, _ in response.headers.raw:
        if len(name) == len(_ENCODING) and name.lower() == _ENCODING:
            return None
    body: bytes = stream.body
    return body


def _take(response: Any, body: bytes) -> None:
    response.is_stream_consumed = True
    response._num_bytes_downloaded = len(body)
    response._content = body


def _let_go(response: Any) -> None:
    """Undo the circle of httpx's response and the stream around ours, which else only the collector finds: of thousands
    of calls a second it makes a collection every few dozen. (httpx2's stream does not know its response.)
    """
    stream = response.stream
    if getattr(stream, "_response", None) is not None:
        response.stream = stream._stream


def _reads_alike(lib: Library, made: type[Any], whole: type[Any], asynchronous: bool) -> bool:
    """Whether a response read our way ends in the state in which the library leaves it."""
    states = []
    for kind in (made, lib.Response):
        response = kind(200, headers=[(b"x-a", b"1")], stream=whole(b"body"))
        content = _run(response.aread()) if asynchronous else response.read()
        states.append((content, {name: value for name, value in vars(response).items() if name != "stream"}))
    (ours, mine), (theirs, known) = states
    known.pop("_decoder", None)  # made for the reading only
    return ours == theirs and mine == known


def _run(reading: Any) -> bytes:
    """The result of a coroutine that has nothing to wait for."""
    try:
        reading.send(None)
    except StopIteration as done:
        result: bytes = done.value
        return result
    reading.close()
    raise ValueError("reading a body that is there has to wait")
