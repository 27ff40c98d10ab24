"""Spans of a guarded function: calls that it makes are below the attempt that makes them, and nothing stays current."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from opentelemetry import trace

from e2e.decorators.kinds import KINDS
from meshlib import Mesh
from meshlib.model.route import RetryPolicy
from parts.fast_backend import FastBackend
from parts.spans import Spans, id_of, parent_of


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_a_guarded_function_are_children_of_its_attempt(
    kind: str, fast_backend: Callable[..., FastBackend]
) -> None:
    backend, spans = fast_backend("ledger"), Spans()
    retries = RetryPolicy(("5xx",), num_retries=1, base_interval=0.001)
    mesh = Mesh.static({"payments": [], "ledger": [backend.address]}, retries=retries)
    mesh.instrument(tracer_provider=spans.provider, metrics=False)
    failing = [True]

    def seen(response: httpx.Response) -> str:
        if failing.pop() if failing else False:
            raise ValueError("the first time")
        return response.text

    @mesh.guard("payments", path="/charge")
    def blocking() -> str:
        with mesh.http.client("ledger") as client:
            return seen(client.get("/"))

    @mesh.guard("payments", path="/charge")
    async def awaited() -> str:
        async with mesh.http.async_client("ledger") as client:
            return seen(await client.get("/"))

    async def both() -> None:
        await awaited()
        assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(both()) if kind == "async" else blocking()
    assert not trace.get_current_span().get_span_context().is_valid

    finished = {id_of(span): span for span in spans.ended}
    wire = [span for span in finished.values() if span.kind is trace.SpanKind.CLIENT]
    assert len(wire) == 2
    paths = []
    for span in wire:
        chain = [span]
        while (above := parent_of(chain[-1])) is not None:
            chain.append(finished[above])
        paths.append(chain)
    assert [len(chain) for chain in paths] == [4, 4], "guarded call, its attempt, the call in it, its attempt"
    assert paths[0][-1] is paths[1][-1], "one guarded call"
    assert paths[0][-2] is not paths[1][-2], "two attempts of it"
    assert len({span.context.trace_id for span in finished.values()}) == 1
