"""110 rotations, 3 trust changes under load, httpx (blocking and asyncio) to uvicorn: no call fails, nobody gets in."""

from __future__ import annotations

import asyncio
import ssl
import threading

import pytest

from e2e.mtls.rotation import ROTATIONS, Load, rotate
from e2e.mtls.workloads import CLIENT_ID, Intruder, Pair, mesh_to, pair_of_workloads, served
from meshlib import Mesh
from meshlib.identity.dev_ca import DevCA
from meshlib.integrations.uvicorn import MeshH11Protocol, MeshHttpToolsProtocol

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def _blocking(mesh: Mesh, load: Load) -> None:
    with mesh.http.client("payments") as client:

        def call() -> None:
            client.post("/", content=b"x" * 1000).raise_for_status()

        caller = load.caller()
        while not load.stop.is_set():
            caller.one(call)


async def _asynchronous(mesh: Mesh, load: Load) -> None:
    async with mesh.http.async_client("payments") as client:

        async def call() -> None:
            (await client.post("/", content=b"x" * 1000)).raise_for_status()

        caller = load.caller()
        while not load.stop.is_set():
            await caller.one_of(call)


async def _several(mesh: Mesh, load: Load) -> None:
    await asyncio.gather(*(_asynchronous(mesh, load) for _ in range(3)))


class Intruders:
    """Clients of the removed authority: with a kept connection, with sessions to resume, and new ones."""

    def __init__(self, port: int, pair: Pair) -> None:
        self._port = port
        self._pair = pair
        self._waiting: list[Intruder] = []
        self.accepted_before = self.accepted_after = 0

    def prepare(self, old: DevCA) -> None:
        trusts = [old, self._pair.authority]
        self._waiting = [Intruder(self._port, old.issue(CLIENT_ID), trusts, version) for version in VERSIONS]
        self.accepted_before += sum(intruder.keep() for intruder in self._waiting)

    def attack(self, _old: DevCA) -> None:
        for intruder in self._waiting:
            self.accepted_after += intruder.call_kept() + intruder.call() + intruder.call()
            intruder.close()


@pytest.mark.parametrize("protocol", [MeshHttpToolsProtocol, MeshH11Protocol])
def test_rotation_under_load(protocol: type) -> None:
    with pair_of_workloads() as pair, served(pair.server.identity, http=protocol) as port:
        intruders, load = Intruders(port, pair), Load()
        with mesh_to(port, pair.client.identity) as mesh:
            callers = [threading.Thread(target=_blocking, args=(mesh, load)) for _ in range(2)]
            callers.append(threading.Thread(target=lambda: asyncio.run(_several(mesh, load))))
            for caller in callers:
                caller.start()
            try:
                renewed = rotate(pair, load, intruders.attack, intruders.prepare)
            finally:
                load.stop.set()
                for caller in callers:
                    caller.join()
    assert renewed == ROTATIONS
    assert load.failures == []
    assert load.done > 100
    assert intruders.accepted_before == 6, "they were welcome as long as their authority was"
    assert intruders.accepted_after == 0


def test_a_request_that_runs_ends_well_and_its_connection_then(tmp_path: object) -> None:
    """Trust removed while a response is being made: it arrives whole, and nothing else goes over that connection."""
    arrived, go_on = threading.Event(), threading.Event()

    async def slow(scope: object, receive: object, send: object) -> None:
        arrived.set()
        await asyncio.to_thread(go_on.wait)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]

    with pair_of_workloads() as pair, served(pair.server.identity, slow) as port:
        old, new = pair.authority, DevCA.new()
        pair.trust(old, new)
        intruder = Intruder(port, old.issue(CLIENT_ID), [old, new])
        answers: list[bool] = []
        caller = threading.Thread(target=lambda: answers.append(intruder.keep()))
        caller.start()
        arrived.wait(10)
        pair.move_to(new)
        pair.trust(new)
        go_on.set()
        caller.join(10)
        assert answers == [True]
        assert not intruder.call_kept()
        intruder.close()
