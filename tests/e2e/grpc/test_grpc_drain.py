"""SIGTERM: health says NOT_SERVING, calls are still taken for a while, those in flight finish, the mesh closes last."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshlib import Mesh
from meshlib.sources.static import StaticSource, static_snapshot
from parts.grpc_stubs import Stubs
from parts.process import Process
from parts.xds import eventually

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class Server:
    """The program, a channel to it, and the stubs over the channel."""

    def __init__(self, kind: str, stubs: Stubs, folder: Path, seconds: float, grace: float) -> None:
        argv = [sys.executable, str(HERE / "draining_app.py"), kind, str(stubs.folder), str(seconds), str(grace)]
        path = f"{ROOT}:{ROOT / 'tests'}"
        self.process = Process(argv, folder / "server.log", env={"PYTHONPATH": path})
        self.stubs = stubs
        port = self.process.wait_line(r"^port (\d+)$")[1]
        self.process.wait_line("mesh started")  # SIGTERM is heeded from here on
        self.address = f"127.0.0.1:{port}"
        self.channel = self.fresh()

    def fresh(self) -> Any:
        """A channel with a connection of its own."""
        return grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    def call(self, seconds: float, channel: Any = None) -> Any:
        """A call under way."""
        return self.stubs.echo(channel or self.channel).Unary.future(self.stubs.ask(str(seconds)), timeout=20)

    @property
    def serving(self) -> bool:
        answer = health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def said(self) -> list[str]:
        return [line for line in self.process.log().splitlines() if not line.startswith(("port", "I", "W", "E0"))]

    def ends(self, within: float = 10.0) -> int:
        eventually(lambda: not self.process.running, "the server ends", within)
        return self.process.stop()

    def stop(self) -> None:
        self.channel.close()
        self.process.stop()


@pytest.fixture(params=["sync", "aio"])
def server(request: pytest.FixtureRequest, servers: Any, grpc_stubs: Stubs) -> Iterator[Callable[..., Server]]:
    def start(seconds: float = 0.0, grace: float = 5.0) -> Server:
        return servers.keep(Server(request.param, grpc_stubs, servers.folder("draining"), seconds, grace))

    return start


def test_the_order_of_a_drain(server: Callable[..., Server]) -> None:
    one = server(seconds=1.0)
    assert one.serving
    slow = one.call(1.5)
    time.sleep(0.1)

    one.process.terminate()
    eventually(lambda: not one.serving, "health says NOT_SERVING")
    assert one.said() == ["mesh started", "deregistered"]
    with one.fresh() as newcomer:
        assert one.call(0, newcomer).result().text == "0", "who has not noticed yet is served"
    assert one.call(0).result().text == "0"
    assert slow.result().text == "1.5", "what is in flight is finished"
    assert one.ends() == 0
    assert one.said() == ["mesh started", "deregistered", "mesh closed", "ended"]


def test_the_grace_ends_what_takes_too_long(server: Callable[..., Server]) -> None:
    one = server(grace=0.3)
    endless = one.call(2)
    time.sleep(0.1)
    one.process.terminate()
    assert endless.exception().code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert one.ends() == 0


def test_a_second_signal_does_not_wait(server: Callable[..., Server]) -> None:
    one = server(seconds=60.0)
    one.process.terminate()
    eventually(lambda: not one.serving, "health says NOT_SERVING")
    one.process.terminate()
    assert one.ends() == 0
    assert "mesh closed" in one.said()


def test_an_instance_leaves_under_load_and_no_call_fails(server: Callable[..., Server], grpc_stubs: Stubs) -> None:
    """Nothing is retried to hide a refusal; what removes the instance is its health, as a kubelet would see it."""
    leaving, staying = server(seconds=1.0), server()

    def snapshot(*these: Server) -> Any:
        return static_snapshot({"payments": [one.address for one in these]})

    source = StaticSource(snapshot(leaving, staying))
    failures: list[str] = []
    served = 0
    done = threading.Event()

    def load(echo: Any) -> None:
        nonlocal served
        while not done.is_set():
            try:
                echo.Unary(grpc_stubs.ask("0.005"), timeout=10)
                served += 1
            except grpc.RpcError as error:
                failures.append(str(error))

    with Mesh(source) as mesh, mesh.grpc.channel("payments") as channel, ThreadPoolExecutor(4) as threads:
        echo = grpc_stubs.echo(channel)
        work = [threads.submit(load, echo) for _ in range(4)]
        try:
            eventually(lambda: served > 50, "calls are served")
            leaving.process.terminate()
            eventually(lambda: not leaving.serving, "health says NOT_SERVING")
            source.replace(snapshot(staying))
            assert leaving.ends() == 0
            so_far = served
            eventually(lambda: served > so_far + 50, "the other serves on")
        finally:
            done.set()
        for one in work:
            one.result()
    assert failures == []
