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

Outcome = httpx.Response | httpx.HTTPError
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
            outcome = await self._ask(errand)
            if torn := cut_off(outcome):
                outcome = await self._ask(errand)
            self._ledger.add(noted(errand, began, outcome, torn))
            await asyncio.sleep(errand.pause)

    async def _ask(self, errand: Errand) -> Outcome:
        try:
            return await self._client.get(errand.url)
        except httpx.HTTPError as error:  # what the mesh raises is httpx's own, too
            return error

    def _repeat_in_thread(self, errand: Errand) -> None:
        with self._mesh.http.client() as client:
            while not self._stopping.wait(errand.pause):
                began = time.monotonic()
                outcome = _ask(client, errand)
                if torn := cut_off(outcome):
                    outcome = _ask(client, errand)
                self._ledger.add(noted(errand, began, outcome, torn))


def _ask(client: httpx.Client, errand: Errand) -> Outcome:
    try:
        return client.get(errand.url)
    except httpx.HTTPError as error:
        return error


def cut_off(outcome: Outcome) -> bool:
    """Whether the answer had begun when its connection broke: as every proxy, the mesh does not retry that. `kill -9`
    does it, rarely: between the two writes of a server that sends head and body apart. The caller may ask again.
    """
    return isinstance(outcome, CallError) and str(outcome.flag) == "UPE"


def noted(errand: Errand, began: float, outcome: Outcome, torn: bool) -> Call:
    """The entry for one call; `torn`: it was asked twice, because the first answer was cut off."""
    took = time.monotonic() - began
    if isinstance(outcome, httpx.Response):
        info, status = outcome.extensions["meshlib"], outcome.status_code
        failed = status not in errand.wanted and not (errand.optional and status == 503)
        revision = int(outcome.headers[REVISION]) if REVISION in outcome.headers else None
        where = info.cluster, info.endpoint
        return Call(errand.kind, began, took, *where, revision, info.attempts, status, failed, int(torn))
    name = type(outcome).__name__
    if not isinstance(outcome, CallError):
        return Call(errand.kind, began, took, "", "", None, 0, f"{name}: {outcome}", failed=True)
    failure = outcome.failure
    failed = not (errand.optional and isinstance(outcome, CircuitOpenError))
    answer = str(outcome) if failed else "circuit open"
    return Call(errand.kind, began, took, failure.cluster, failure.endpoint, None, failure.attempts, answer, failed)
