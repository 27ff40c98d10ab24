"""Faults through the four doors of HTTP and through guarded functions: `meshlib.testing.faults` on real backends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.http_client.conftest import held
from e2e.http_client.doors import Door
from meshlib import CallError, Mesh, ResponseFlag
from meshlib.engine.events import FaultInjected
from meshlib.testing import faults
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
CALL = ("GET", "http://payments/charge")


def test_an_abort_is_an_answer(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("payments")
    mesh = static({"payments": [backend.address]})
    client = door.client(mesh)
    with faults(mesh, "payments", abort=503):
        response = client.get(CALL[1])
    assert (response.status_code, response.text, backend.count) == (503, "fault filter abort", 0)
    assert response.extensions["meshlib"].flag is ResponseFlag.FI
    assert client.get(CALL[1]).status_code == 200


def test_a_share_of_the_calls(door: Door, static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("payments").address]})
    client = door.client(mesh)
    told: list[FaultInjected] = []
    mesh.on_event(lambda event: told.append(event) if isinstance(event, FaultInjected) else None)
    with faults(mesh, "payments", abort=503, percentage=50):
        counts = Counter(client.get(CALL[1]).status_code for _ in range(400))
    assert abs(counts[503] - 200) < 50  # five standard deviations
    assert mesh.stats()["fault.aborts_injected"] == counts[503]
    assert [(event.name, event.count) for event in told] == [("payments (from code)", 1)]


def test_a_delay_is_not_of_one_call_only(door: Door, static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("payments").address]})
    client = door.client(mesh)
    client.get(CALL[1])
    began = time.monotonic()
    with faults(mesh, "payments", delay=0.3):
        answers = client.together([CALL] * 8)
    assert 0.29 < time.monotonic() - began < 1.5
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.extensions["meshlib"].flags for answer in answers} == {(ResponseFlag.DI,)}
    assert mesh.stats()["fault.active_faults"] == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_slow_body(door: Door, static: Static, fast_backend: Fast, streamed: bool) -> None:
    size = 3000 if not streamed else 200_000  # of which not all can have come with the head
    mesh = static({"payments": [fast_backend("payments", Reply(body=b"x" * size)).address]})
    client = door.client(mesh)
    began = time.monotonic()
    with faults(mesh, "payments", limit_kbps=10 if not streamed else 600):
        response = client.open(*CALL)
        assert len(mesh.faults.active) == 1
        pieces = list(client.chunks(response, "raw"))
    took = time.monotonic() - began
    assert b"".join(pieces) == b"x" * size
    assert len(pieces) > 3
    assert 0.2 < took < 1.0
    assert len(mesh.faults.active) == 0
    client.close_response(response)


def test_a_slow_body_that_is_left(door: Door, static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("payments", Reply(body=b"x" * 3000)).address]})
    client = door.client(mesh)
    with faults(mesh, "payments", limit_kbps=1):
        response = client.open(*CALL)
        next(client.chunks(response, "raw"))
        client.close_response(response)
        del response
    assert len(mesh.faults.active) == 0
    assert held(mesh, connections=False) == {}


def test_the_switch(door: Door, static: Static, fast_backend: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fast_backend("payments")
    mesh = static({"payments": [backend.address]})
    client = door.client(mesh)
    mesh.faults.enabled = False
    with faults(mesh, "payments", abort=503):
        assert client.get(CALL[1]).status_code == 200
        mesh.faults.enabled = True
        assert client.get(CALL[1]).status_code == 503
    monkeypatch.setenv("MESHLIB_FAULTS", "off")
    other = static({"payments": [backend.address]})
    with faults(other, "payments", abort=503):
        assert door.client(other).get(CALL[1]).status_code == 200


# ---------------------------------------------------------------------------------------------------------- functions


def test_a_guarded_function_is_not_called(static: Static) -> None:
    mesh = static({"payments": ["127.0.0.1:1"]})
    calls = []

    @mesh.guard("payments")
    def charge() -> str:
        calls.append(1)
        return "done"

    with faults(mesh, "payments", abort=503), pytest.raises(CallError) as refused:
        charge()
    assert (refused.value.flag, calls) == (ResponseFlag.FI, [])
    began = time.monotonic()
    with faults(mesh, "payments", delay=0.2):
        assert charge() == "done"
    assert time.monotonic() - began > 0.19


async def test_a_guarded_coroutine_waits_without_blocking(static: Static) -> None:
    mesh = static({"payments": ["127.0.0.1:1"]})

    @mesh.guard("payments")
    async def charge() -> str:
        return "done"

    began = time.monotonic()
    with faults(mesh, "payments", delay=0.2):
        assert await asyncio.gather(*(charge() for _ in range(20))) == ["done"] * 20
    assert 0.19 < time.monotonic() - began < 1.0


# ---------------------------------------------------------------------------------------------- Istio's VirtualService

SHOP = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: payments}}
spec:
  hosts: [payments]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: {host}, ports: {{http: {port}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: payments}}
spec:
  hosts: [payments]
  http:
  - match: [{{headers: {{x-drill: {{exact: "1"}}}}}}]
    fault:
      delay: {{fixedDelay: 200ms, percentage: {{value: 100}}}}
      abort: {{httpStatus: 418, percentage: {{value: 100}}}}
    route: [{{destination: {{host: payments}}}}]
  - route: [{{destination: {{host: payments}}}}]
"""


def test_a_fault_of_a_virtual_service(door: Door, meshes: list[Mesh], fast_backend: Fast, tmp_path: Path) -> None:
    backend = fast_backend("payments")
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP.format(host=backend.host, port=backend.port))
    mesh = Mesh.from_file(file).wait_ready()
    meshes.append(mesh)
    client = door.client(mesh)
    assert client.get(CALL[1]).status_code == 200
    began = time.monotonic()
    response = client.get(CALL[1], headers={"x-drill": "1"})
    assert (response.status_code, backend.count) == (418, 1)
    assert response.extensions["meshlib"].flags == (ResponseFlag.DI, ResponseFlag.FI)
    assert time.monotonic() - began > 0.19
    file.write_text(SHOP.format(host=backend.host, port=backend.port).replace("418", "419"))
    until = time.monotonic() + 10
    while client.get(CALL[1], headers={"x-drill": "1"}).status_code != 419:
        assert time.monotonic() < until, mesh.issues
