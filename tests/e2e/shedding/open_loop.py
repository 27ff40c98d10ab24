"""Callers who do not wait for each other: requests at a rate, whatever becomes of them."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

REQUEST = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """When it was asked, how long it took, and the status; None: the caller gave up."""

    at: float
    took: float
    status: int | None


class Callers:
    """Callers of one address over kept connections; each gives up after `patience` seconds."""

    def __init__(self, port: int, patience: float) -> None:
        self._port = port
        self._patience = patience
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[Answer] = []

    async def at_rate(self, rate: float, seconds: float, seed: int = 1) -> list[Answer]:
        """Requests at random moments, so many a second."""
        rng, self.answers = random.Random(seed), []
        began = time.monotonic()
        at, tasks = 0.0, []
        while (at := at + rng.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            tasks.append(asyncio.create_task(self._one(began)))
        await asyncio.gather(*tasks)
        return self.answers

    async def at_once(self, width: int, seconds: float) -> list[Answer]:
        """So many callers, each of whom asks again when it is answered."""
        self.answers = []
        began = time.monotonic()

        async def caller() -> None:
            while time.monotonic() < began + seconds:
                await self._one(began)

        await asyncio.gather(*(caller() for _ in range(width)))
        return self.answers

    async def _one(self, began: float) -> None:
        at = time.monotonic()
        status = None
        connection = None
        try:
            async with asyncio.timeout(self._patience):
                connection = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
                status = await _ask(*connection)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            if connection is not None:
                connection[1].close()
        else:
            self._idle.append(connection)
        self.answers.append(Answer(at - began, time.monotonic() - at, status))

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    start = lower.index(b"content-length:") + len(b"content-length:")
    await reader.readexactly(int(lower[start : lower.index(b"\r\n", start)]))
    return int(head[9:12])
