"""`meshlib run` and `opentelemetry-instrument` in either order: both do their work, and nothing is told twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.zero_code.conftest import said
from parts.fast_backend import FastBackend, Reply

PROGRAM = """
import httpx, sys
httpx.get("http://payments/charge")
httpx.get(sys.argv[1])
"""
TRACING = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_SERVICE_NAME": "shop",
}

CHANNELS = """
import asyncio, grpc, json, sys
from concurrent.futures import ThreadPoolExecutor

server = grpc.server(ThreadPoolExecutor(1))
say = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": say}),))
unknown = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()

def blocking():
    with grpc.insecure_channel(unknown) as channel:
        return channel.unary_unary("/test.Echo/Say")(b"sync", timeout=10).decode()

async def asynchronous():
    async with grpc.aio.insecure_channel(unknown) as channel:
        return (await channel.unary_unary("/test.Echo/Say")(b"aio", timeout=10)).decode()

print(json.dumps([blocking(), asyncio.run(asynchronous())]))
server.stop(0)
"""


def spans(text: str) -> list[dict[str, Any]]:
    """The spans the console exporter printed."""
    decoder, found, position = json.JSONDecoder(), [], text.find("{")
    while position >= 0:
        span, end = decoder.raw_decode(text, position)
        found.append(span)
        position = text.find("{", end)
    return found


@pytest.mark.parametrize("order", ["opentelemetry first", "meshlib first"])
def test_one_span_a_call_and_one_an_attempt(
    meshlib_run: Any, conf: Path, payments: FastBackend, other: FastBackend, tmp_path: Path, order: str
) -> None:
    failing = iter([503])
    payments.behave(lambda request: Reply(next(failing, 200)))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    python = ("python", str(program), other.url)
    if order == "opentelemetry first":
        # By the environment: opentelemetry-instrument takes an option --config for one of its own.
        before = ("opentelemetry-instrument",)
        done = meshlib_run("--", *python, before=before, MESHLIB_CONFIG=str(conf), **TRACING)
    else:
        done = meshlib_run("--config", conf, "--", "opentelemetry-instrument", *python, **TRACING)
    assert done.returncode == 0, done.stdout + done.stderr
    assert payments.count == 2
    made = spans(done.stdout)
    by_us = [span for span in made if span["context"]["trace_id"] == _trace_of(made, "payments")]
    by_contrib = [span for span in made if span not in by_us]
    assert len(by_us) == 3, [span["name"] for span in made]
    (logical,) = [span for span in by_us if span["parent_id"] is None]
    attempts = [span for span in by_us if span is not logical]
    assert [span["parent_id"] for span in attempts] == [logical["context"]["span_id"]] * 2
    assert [span["attributes"].get("http.request.resend_count") for span in attempts] == [None, 1]
    assert len(by_contrib) == 1, "a host the mesh does not know is the instrumentation's"


@pytest.mark.parametrize("order", ["opentelemetry first", "meshlib first"])
def test_grpc_to_a_host_the_mesh_does_not_know(meshlib_run: Any, conf: Path, tmp_path: Path, order: str) -> None:
    """The mesh's way out of itself leads through the instrumentation, and back into nothing."""
    program = tmp_path / "program.py"
    program.write_text(CHANNELS)
    silent = {**TRACING, "OTEL_TRACES_EXPORTER": "none"}
    if order == "opentelemetry first":
        before = ("opentelemetry-instrument",)
        done = meshlib_run("--", "python", program, before=before, MESHLIB_CONFIG=str(conf), **silent)
    else:
        done = meshlib_run("--config", conf, "--", "opentelemetry-instrument", "python", program, **silent)
    assert said(done) == ["sync", "aio"]


def _trace_of(made: list[dict[str, Any]], cluster: str) -> str:
    (trace,) = {span["context"]["trace_id"] for span in made if span["attributes"].get("meshlib.cluster") == cluster}
    return str(trace)


def test_the_command_is_found_by_opentelemetry() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="opentelemetry_pre_instrument", name="meshlib")
    assert callable(found.load())
