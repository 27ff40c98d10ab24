"""The same for gRPC: receipts one at a time and statements as streams, through a channel of the mesh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc

from examples.demo.calls import Call, Ledger
from examples.demo.receipts import LINES, ReceiptsStub
from meshlib import CallError, Mesh

PAUSE = 0.05  # seconds between a caller's calls
TRIES = 3  # to get the rest of a stream


class GrpcLoad:
    """Two callers ask for receipts and three for statements until the `async with` is left."""

    def __init__(self, mesh: Mesh, ledger: Ledger) -> None:
        self._mesh = mesh
        self._ledger = ledger
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._channel = self._mesh.grpc.aio_channel("receipts")
        self._stub = ReceiptsStub(self._channel)
        asked = (self._receipt, self._receipt, *[self._statement] * 3)
        self._callers = [asyncio.ensure_future(self._repeat(ask, PAUSE * n / 5)) for n, ask in enumerate(asked)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        await asyncio.gather(*self._callers)
        await self._channel.close()

    async def _repeat(self, ask: Callable[[], Awaitable[Call]], start: float) -> None:
        await asyncio.sleep(start)
        while not self._stopping:
            self._ledger.add(await ask())
            await asyncio.sleep(PAUSE)

    async def _receipt(self) -> Call:
        began = time.monotonic()
        call = self._stub.Issue({})
        try:
            await call
        except grpc.RpcError as error:
            return _noted("receipt", began, _told_by(error), error=str(error))
        return _noted("receipt", began, call.meshlib)

    async def _statement(self) -> Call:
        """A stream that has begun (UC: its connection broke after that) is its caller's: the mesh does not retry it.
        Whoever knows how far it came can ask for the rest.
        """
        began, lines, continued = time.monotonic(), list[int](), 0
        while True:
            call, before = self._stub.Statement({"first": len(lines) + 1}), len(lines)
            try:
                async for message in call:
                    lines.append(message["line"])
            except grpc.RpcError as error:
                begun = len(lines) > before or (isinstance(error, CallError) and str(error.flag) == "UC")
                if begun and continued < TRIES:
                    continued += 1
                    continue
                return _noted("statement", began, _told_by(error), error=str(error))
            whole = lines == list(range(1, LINES + 1))
            return _noted("statement", began, call.meshlib, continued, error="" if whole else f"lines {lines}")


def _told_by(error: Any) -> Any:
    """What the mesh says about a failed call: of its own failure, or of a status the server sent."""
    return error.failure if isinstance(error, CallError) else getattr(error, "meshlib", None)


def _noted(kind: str, began: float, info: Any, continued: int = 0, error: str = "") -> Call:
    cluster, endpoint, attempts = (info.cluster, info.endpoint, info.attempts) if info else ("", "", 0)
    took, answer = time.monotonic() - began, error or "OK"
    return Call(kind, began, took, cluster, endpoint, None, attempts, answer, bool(error), continued)
