"""The `trace` extension of a request: the steps of its exchange, told under the names httpcore gives them.

    connection.connect_tcp (or connect_unix_socket; TLS included)   with host, port, timeout
    http11.send_request_headers, http11.send_request_body           with request
    http11.receive_response_headers                                 with request
    http11.receive_response_body, http11.response_closed            with request

Each is told as `<name>.started`, then `<name>.complete` with what came of it (`return_value`), or `<name>.failed` with
the `exception`. A call that is tried again tells of each attempt. Without the extension none of this runs.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

Hook = Callable[[str, dict[str, Any]], Any]
_BODY, _CLOSED = "http11.receive_response_body", "http11.response_closed"


class Trace:
    """The steps of one request, told to `hook(event, info)`: a function for a blocking client, else a coroutine's."""

    def __init__(self, hook: Hook, request: Any) -> None:
        self._hook = hook
        self._request = request

    def step(self, name: str, **info: object) -> Step:
        """One step; a context manager."""
        return Step(self._hook, name, info or {"request": self._request})


class Step:
    """One step; `return_value` is what came of it."""

    return_value: object = None

    def __init__(self, hook: Hook, name: str, info: dict[str, Any]) -> None:
        self._hook = hook
        self._name = name
        self._info = info

    def __enter__(self) -> Self:
        self._tell("started", self._info)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._tell(*self._end(error))

    async def __aenter__(self) -> Self:
        await self._atell("started", self._info)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._atell(*self._end(error))

    def _end(self, error: BaseException | None) -> tuple[str, dict[str, Any]]:
        return ("complete", {"return_value": self.return_value}) if error is None else ("failed", {"exception": error})

    def _tell(self, how: str, info: dict[str, Any]) -> None:
        told = self._hook(f"{self._name}.{how}", info)
        if inspect.iscoroutine(told):
            told.close()
            raise TypeError("the `trace` extension of a blocking client must be a plain function")

    async def _atell(self, how: str, info: dict[str, Any]) -> None:
        told = self._hook(f"{self._name}.{how}", info)
        if not inspect.isawaitable(told):
            raise TypeError("the `trace` extension of an asyncio client must be an async function")
        await told


class TracedBody:
    """A response body of a blocking client whose reading and closing are told."""

    def __init__(self, body: Any, trace: Trace) -> None:
        self._body = body
        self._trace = trace

    def __iter__(self) -> Iterator[bytes]:
        with self._trace.step(_BODY):
            yield from self._body

    def close(self) -> None:
        """Done with the body."""
        with self._trace.step(_CLOSED):
            self._body.close()


class TracedAsyncBody:
    """The asyncio counterpart."""

    def __init__(self, body: Any, trace: Trace) -> None:
        self._body = body
        self._trace = trace

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with self._trace.step(_BODY):
            async for piece in self._body:
                yield piece

    async def aclose(self) -> None:
        """Done with the body."""
        async with self._trace.step(_CLOSED):
            await self._body.aclose()
