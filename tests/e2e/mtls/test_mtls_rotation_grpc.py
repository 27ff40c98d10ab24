"""110 rotations, 3 trust changes under load, gRPC (blocking, asyncio) on both ends: no call fails, nobody gets in."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from e2e.mtls.rotation import ROTATIONS, Load, rotate
from e2e.mtls.test_mtls_grpc import KNOWN, METHOD, aio_grpc_server, grpc_server
from e2e.mtls.workloads import CLIENT_ID, Pair, mesh_to, pair_of_workloads
from meshlib import Mesh
from meshlib.identity.dev_ca import DevCA, Issued


@contextlib.contextmanager
def _on_a_loop(identity: Any) -> Iterator[int]:
    """The asyncio server on a loop of its own, on a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = aio_grpc_server(identity)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _blocking(mesh: Mesh, load: Load) -> None:
    with mesh.grpc.channel("payments") as channel:
        who = channel.unary_unary(METHOD)
        caller = load.caller()
        while not load.stop.is_set():
            caller.one(lambda: who(b"", timeout=20))


async def _asynchronous(mesh: Mesh, load: Load) -> None:
    async with mesh.grpc.aio_channel("payments") as channel:
        who = channel.unary_unary(METHOD)

        async def calls() -> None:
            caller = load.caller()
            while not load.stop.is_set():
                await caller.one_of(lambda: who(b"", timeout=20))

        await asyncio.gather(*(calls() for _ in range(3)))


def _plain_channel(port: int, issued: Issued, trusted: bytes) -> grpc.Channel:
    """A client that knows nothing of us; its server has the DNS name that grpcio wants."""
    credentials = grpc.ssl_channel_credentials(trusted, issued.key, issued.certificate)
    options = [
        ("grpc.ssl_target_name_override", "payments.test"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)


def _answers(channel: grpc.Channel) -> bool:
    try:
        return bool(channel.unary_unary(METHOD)(b"", timeout=2) == KNOWN)
    except grpc.RpcError:
        return False


class Intruders:
    """Clients of the removed authority: one with a connection, one that comes anew."""

    def __init__(self, port: int, pair: Pair) -> None:
        self._port = port
        self._pair = pair
        self._channels: list[grpc.Channel] = []
        self.accepted_before = self.accepted_after = 0

    def prepare(self, old: DevCA) -> None:
        trusted = old.pem + self._pair.authority.pem
        self._channels = [_plain_channel(self._port, old.issue(CLIENT_ID), trusted) for _ in range(2)]
        self.accepted_before += _answers(self._channels[0])

    def attack(self, _old: DevCA) -> None:
        for channel in self._channels:
            self.accepted_after += _answers(channel)
            channel.close()


@pytest.mark.parametrize("serve", [grpc_server, _on_a_loop])
def test_rotation_under_load(serve: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    issue = DevCA.issue  # plain gRPC clients can only check a DNS name, so the certificates have one as well
    monkeypatch.setattr(DevCA, "issue", lambda ca, spiffe_id: issue(ca, spiffe_id, dns_names=["payments.test"]))
    with pair_of_workloads() as pair, serve(pair.server.identity) as port:
        intruders, load = Intruders(port, pair), Load()
        with mesh_to(port, pair.client.identity) as mesh:
            callers = [threading.Thread(target=_blocking, args=(mesh, load)) for _ in range(2)]
            callers.append(threading.Thread(target=lambda: asyncio.run(_asynchronous(mesh, load))))
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
    assert intruders.accepted_before == 3, "they were welcome as long as their authority was"
    assert intruders.accepted_after == 0
