"""Client interceptors of the asyncio channel: they see each call once, whatever attempts it takes.

grpc.aio binds its own to its channel's internals, so the chain is run here; interceptors are written as for grpc.aio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import partial
from typing import Any

import grpc
from grpc import aio

KINDS = {
    "unary_unary": (aio.UnaryUnaryClientInterceptor, aio.UnaryUnaryCall),
    "unary_stream": (aio.UnaryStreamClientInterceptor, aio.UnaryStreamCall),
    "stream_unary": (aio.StreamUnaryClientInterceptor, aio.StreamUnaryCall),
    "stream_stream": (aio.StreamStreamClientInterceptor, aio.StreamStreamCall),
}
_END: Any = object()


def sorted_by_kind(interceptors: Sequence[Any]) -> dict[str, list[Any]]:
    """The interceptors of each kind of call, in order. Raises ValueError for what is none."""
    chains: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for interceptor in interceptors:
        kinds = [kind for kind, (base, _) in KINDS.items() if isinstance(interceptor, base)]
        if not kinds:
            raise ValueError(f"{interceptor!r} is no client interceptor of grpc.aio")
        for kind in kinds:
            chains[kind].append(interceptor)
    return chains


def intercepted(method: Any, kind: str, path: str, chain: Sequence[Any]) -> Any:
    """The multi-callable `method` with the interceptors in front of it."""
    return method if not chain else _TYPES[kind][0](method, kind, path, chain)


class _Chain:
    """A multi-callable behind interceptors."""

    def __init__(self, method: Any, kind: str, path: str, chain: Sequence[Any]) -> None:
        self._method = method
        self._kind = kind
        self._path = path.encode("ascii")
        self._chain = chain

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """Start a call."""
        given = metadata if isinstance(metadata, aio.Metadata) else aio.Metadata(*(metadata or ()))
        details = aio.ClientCallDetails(self._path, timeout, given, credentials, wait_for_ready)
        writes: asyncio.Queue[Any] | None = None
        if self._kind.startswith("stream_") and request is None:
            writes = asyncio.Queue(maxsize=1)
            request = _written(writes)
        return _TYPES[self._kind][1](self._run(self._chain, compression, details, request), writes)

    async def _run(self, chain: Sequence[Any], compression: Any, details: Any, request: Any) -> Any:
        """The interceptors that are left, then the call itself."""
        if not chain:
            return self._method(
                request,
                timeout=details.timeout,
                metadata=details.metadata,
                credentials=details.credentials,
                wait_for_ready=details.wait_for_ready,
                compression=compression,
            )
        intercept = getattr(chain[0], f"intercept_{self._kind}")
        answer = await intercept(partial(self._run, chain[1:], compression), details, request)
        return answer if isinstance(answer, KINDS[self._kind][1]) else _TYPES[self._kind][2](answer)


async def _written(writes: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (request := await writes.get()) is not _END:
        yield request


class _Call:
    """What the caller holds: the call that the interceptors arrive at, once they have."""

    def __init__(self, run: Any, writes: asyncio.Queue[Any] | None) -> None:
        self._arrival = asyncio.get_running_loop().create_task(run)
        self._writes = writes
        self._responses: AsyncIterator[Any] | None = None

    def _arrived(self) -> Any:
        """The call, None while the interceptors work; also when they failed."""
        arrival = self._arrival
        return arrival.result() if arrival.done() and not arrival.cancelled() and not arrival.exception() else None

    def cancel(self) -> bool:
        """Cancel the interceptors, or the call they arrived at."""
        call = self._arrived()
        cancelled: bool = self._arrival.cancel() if call is None else call.cancel()
        return cancelled

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        call = self._arrived()
        return self._arrival.cancelled() if call is None else bool(call.cancelled())

    def done(self) -> bool:
        """Whether it is over."""
        call = self._arrived()
        return self._arrival.done() if call is None else bool(call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when it is over."""
        self._arrival.add_done_callback(partial(self._hand_on, callback))

    def _hand_on(self, callback: Callable[[Any], None], _: Any) -> None:
        call = self._arrived()
        if call is None:
            callback(self)
        else:
            call.add_done_callback(lambda _: callback(self))

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline, once the call is under way."""
        call = self._arrived()
        left: float | None = None if call is None else call.time_remaining()
        return left

    async def initial_metadata(self) -> Any:
        """The initial metadata."""
        return await self._of("initial_metadata")

    async def trailing_metadata(self) -> Any:
        """The trailing metadata."""
        return await self._of("trailing_metadata")

    async def code(self) -> grpc.StatusCode:
        """The status."""
        return await self._of("code")

    async def details(self) -> str | None:
        """The status in words."""
        said: str | None = await self._of("details")
        return said

    async def debug_error_string(self) -> str | None:
        """Grpcio's own words."""
        said: str | None = await self._of("debug_error_string")
        return said

    async def wait_for_connection(self) -> None:
        """Wait until an attempt counts."""
        await (await self._arrival).wait_for_connection()

    async def _of(self, what: str) -> Any:
        try:
            call = await asyncio.shield(self._arrival)
        except aio.AioRpcError as error:
            return getattr(error, what)()
        return await getattr(call, what)()

    # ------------------------------------------------------------------ responses and requests, where there are any

    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._arrival.__await__()
        response = yield from call.__await__()
        return response

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._responses is None:
            self._responses = self._all_responses()
        return self._responses

    async def _all_responses(self) -> AsyncIterator[Any]:
        async for response in await self._arrival:
            yield response

    async def read(self) -> Any:
        """The next message, aio.EOF at the end."""
        return await anext(aiter(self), aio.EOF)

    async def write(self, request: Any) -> None:
        """Write one request, which the interceptors see in their iterator."""
        await self._write(request)

    async def done_writing(self) -> None:
        """No more requests."""
        await self._write(_END)

    async def _write(self, item: Any) -> None:
        if self._writes is None:
            raise aio.UsageError("The iterator and read/write APIs may not be mixed on a single RPC.")
        call = await self._arrival
        ended = asyncio.ensure_future(call.code())
        put = asyncio.ensure_future(self._writes.put(item))
        try:
            await asyncio.wait((ended, put), return_when=asyncio.FIRST_COMPLETED)
            if not put.done():
                raise asyncio.InvalidStateError("RPC already finished.")
        finally:
            ended.cancel()
            put.cancel()


class _Answer(_Call):
    """What an interceptor answered in place of a call: one response, or an iterator of them."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self._responses = None

    def cancel(self) -> bool:
        """Too late."""
        return False

    def cancelled(self) -> bool:
        """It was answered."""
        return False

    def done(self) -> bool:
        """It was answered."""
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """At once."""
        callback(self)

    def time_remaining(self) -> float | None:
        """It was answered."""
        return None

    async def _of(self, what: str) -> Any:
        if what == "code":
            return grpc.StatusCode.OK
        return aio.Metadata() if what.endswith("metadata") else ""

    async def wait_for_connection(self) -> None:
        """There is none."""

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._answer

    async def _all_responses(self) -> AsyncIterator[Any]:
        async for response in self._answer:
            yield response


def _types(multicallable: Any, call: Any) -> tuple[Any, Any, Any]:
    """The three classes of a kind, each an instance of what grpc.aio says it is."""
    return (
        type("InterceptedMultiCallable", (_Chain, multicallable), {}),
        type("InterceptedCall", (_Call, call), {}),
        type("InterceptorsAnswer", (_Answer, call), {}),
    )


_TYPES = {
    "unary_unary": _types(aio.UnaryUnaryMultiCallable, aio.UnaryUnaryCall),
    "unary_stream": _types(aio.UnaryStreamMultiCallable, aio.UnaryStreamCall),
    "stream_unary": _types(aio.StreamUnaryMultiCallable, aio.StreamUnaryCall),
    "stream_stream": _types(aio.StreamStreamMultiCallable, aio.StreamStreamCall),
}
