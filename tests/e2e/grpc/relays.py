"""Services that answer each request with what a meshed call made while it is served brought to a second service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from meshlib.context import current, peer

Pairs = dict[str, str]


class Relay:
    """Blocking handlers. `client` is a meshed client of the second service, which echoes what it gets.

    A request's text may say "fail" (raise), "abort" (a status of its own), "code" (the same without raising) or "late"
    (after the first answer).
    """

    def __init__(self, messages: Any, client: httpx.Client) -> None:
        self._messages = messages
        self._client = client

    def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        self._misbehave(ask, context)
        return self._answer()

    def ServerStream(self, ask: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self._misbehave(ask, context)
        yield self._answer()
        yield self._answer()
        if ask.text == "late":
            raise ValueError("late")

    def ClientStream(self, asks: Iterator[Any], context: Any) -> Any:  # noqa: N802
        for ask in asks:
            self._misbehave(ask, context)
        return self._answer()

    def Both(self, asks: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        for ask in asks:
            self._misbehave(ask, context)
            yield self._answer()

    def _answer(self) -> Any:
        return answer(self._messages, self._client.get("/").json()["headers"])

    def _misbehave(self, ask: Any, context: Any) -> None:
        from grpc import StatusCode

        if ask.text == "fail":
            raise ValueError("as asked")
        if ask.text == "abort":
            context.set_trailing_metadata((("x-own", "1"),))
            context.abort(StatusCode.NOT_FOUND, "as asked")
        if ask.text == "code":
            context.set_code(StatusCode.NOT_FOUND)
        if ask.text == "own":
            context.send_initial_metadata((("x-own", "1"),))


class AioRelay:
    """Handlers as coroutines and asynchronous generators."""

    def __init__(self, messages: Any, client: Callable[[], httpx.AsyncClient]) -> None:
        self._messages = messages
        self._client = client

    async def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        await self._misbehave(ask, context)
        return await self._answer()

    async def ServerStream(self, ask: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._misbehave(ask, context)
        yield await self._answer()
        yield await self._answer()
        if ask.text == "late":
            raise ValueError("late")

    async def ClientStream(self, asks: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        async for ask in asks:
            await self._misbehave(ask, context)
        return await self._answer()

    async def Both(self, asks: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for ask in asks:
            await self._misbehave(ask, context)
            yield await self._answer()

    async def _answer(self) -> Any:
        async with self._client() as client:
            response = await asyncio.create_task(client.get("/"))  # a task of the handler's own inherits the context
        return answer(self._messages, response.json()["headers"])

    async def _misbehave(self, ask: Any, context: Any) -> None:
        from grpc import StatusCode

        if ask.text == "fail":
            raise ValueError("as asked")
        if ask.text == "abort":
            context.set_trailing_metadata((("x-own", "1"),))
            await context.abort(StatusCode.NOT_FOUND, "as asked")
        if ask.text == "code":
            context.set_code(StatusCode.NOT_FOUND)
        if ask.text == "own":
            await context.send_initial_metadata((("x-own", "1"),))


class ReadWriteRelay(AioRelay):
    """Streams by `read` and `write`."""

    async def ServerStream(self, ask: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        await self._misbehave(ask, context)
        await context.write(await self._answer())
        await context.write(await self._answer())
        if ask.text == "late":
            raise ValueError("late")

    async def Both(self, asks: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        from grpc import aio

        while (ask := await context.read()) is not aio.EOF:
            await self._misbehave(ask, context)
            await context.write(await self._answer())


def answer(messages: Any, headers: Any) -> Any:
    """What the second service got, and what the handler itself can see."""
    pairs = [messages.Pair(name=name, value=value.encode("latin-1")) for name, value in headers]
    pairs.append(messages.Pair(name="seen-peer", value=str(peer()).encode()))
    pairs.append(messages.Pair(name="seen-id", value=current.get().request_id.encode()))
    return messages.Answer(metadata=pairs)
