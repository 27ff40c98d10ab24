"""The client under load: asyncio callers and a thread, all through one mesh, each call noted as its caller saw it."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from examples.demo.calls import Call, Ledger
from meshlib import CallError, CircuitOpenError, Mesh

REVISION = "x-config-revision"


@dataclass(frozen=True, slots=True)
class Errand:
    """What a caller asks again and again. `pause` is seconds between its calls.

    `wanted` are the statuses that are an answer. `optional`: the caller has a fallback, so a 503 or an open circuit is
    not a failure to it either (but every other error is).
    """

    kind: str
    url: str
    pause: float
    callers: int = 1
    wanted: frozenset[int] = frozenset({200})
    optional: bool = False


ERRANDS = (
    Errand("charge", "http://payments/charge", 0.03, callers=12),
    Errand("checkout", "http://payments/checkout", 0.2),
    Errand("report", "http://payments/report", 0.04, wanted=frozenset({200, 429})),
    Errand("hint", "http://hints/hint", 0.05, optional=True),
)
IN_A_THREAD = Errand("charge", "http://payments/charge", 0.04)


class Load:
    """Runs the errands until the `async with` is left; then each caller ends its last call in peace."""

    def __init__(self, mesh: Mesh, ledger: Ledger) -> None:
        self._mesh = mesh
        self._ledger = ledger
        self._stopping = threading.Event()
        self._callers: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self._client = self._mesh.http.async_client()
        for errand in ERRANDS:
            starts = (errand.pause * number / errand.callers for number in range(errand.callers))
            self._callers += [asyncio.ensure_future(self._repeat(errand, start)) for start in starts]
        self._callers.append(asyncio.ensure_future(asyncio.to_thread(self._repeat_in_thread, IN_A_THREAD)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        await asyncio.gather(*self._callers)
        await self._client.aclose()

    async def _repeat(self, errand: Errand, start: float) -> None:
        await asyncio.sleep(start)  # callers take turns, as independent ones would
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                outcome: httpx.Response | httpx.HTTPError = await self._client.get(errand.url)
            except httpx.HTTPError as error:  # what the mesh raises is httpx's own, too
                outcome = error
            self._ledger.add(noted(errand, began, outcome))
            await asyncio.sleep(errand.pause)

    def _repeat_in_thread(self, errand: Errand) -> None:
        with self._mesh.http.client() as client:
            while not self._stopping.wait(errand.pause):
                began = time.monotonic()
                try:
                    outcome: httpx.Response | httpx.HTTPError = client.get(errand.url)
                except httpx.HTTPError as error:
                    outcome = error
                self._ledger.add(noted(errand, began, outcome))


def noted(errand: Errand, began: float, outcome: httpx.Response | httpx.HTTPError) -> Call:
    """The entry for one call."""
    took = time.monotonic() - began
    if isinstance(outcome, httpx.Response):
        info, status = outcome.extensions["meshlib"], outcome.status_code
        failed = status not in errand.wanted and not (errand.optional and status == 503)
        revision = int(outcome.headers[REVISION]) if REVISION in outcome.headers else None
        return Call(errand.kind, began, took, info.cluster, info.endpoint, revision, info.attempts, status, failed)
    name = type(outcome).__name__
    if not isinstance(outcome, CallError):
        return Call(errand.kind, began, took, "", "", None, 0, f"{name}: {outcome}", failed=True)
    failure = outcome.failure
    failed = not (errand.optional and isinstance(outcome, CircuitOpenError))
    answer = str(outcome) if failed else "circuit open"
    return Call(errand.kind, began, took, failure.cluster, failure.endpoint, None, failure.attempts, answer, failed)
