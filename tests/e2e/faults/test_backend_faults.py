"""Backends that die, hang, reset, half-close or drop idle connections, under load.

With retries no caller sees any of it; without, each fault has its flag, in bounded time, and nothing hangs. (Which
exception each fault is, fault by fault and library by library, is in `http_client/test_client_errors.py`.)
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from e2e.http_client.doors import DOORS, Door
from e2e.wire.raw_server import Peer, RawServer
from meshlib import CallError, Mesh
from meshlib.flags import ResponseFlag
from meshlib.model.cluster import OutlierDetection
from meshlib.model.route import RetryPolicy
from meshlib.sources.static import StaticSource, static_cluster, static_snapshot
from parts.backend import Backend
from parts.fast_backend import FastBackend
from parts.load import Load

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
RETRIES = RetryPolicy(
    ("connect-failure", "reset", "5xx"),
    num_retries=3,
    per_try_timeout=0.4,
    previous_hosts=True,
    host_selection_retry_max_attempts=5,
    base_interval=0.005,
    max_interval=0.02,
)
LIMIT = 0.5  # the route's timeout where nothing is retried
NOISE = 2.0  # seconds a busy machine may add


def mesh_with_retries(*addresses: str) -> Mesh:
    """Every fault is retried elsewhere; an endpoint that fails five times in a row is left out for a while."""
    cluster = static_cluster("payments", addresses, connect_timeout=0.3)
    detection = OutlierDetection(consecutive_5xx=5, interval=0.2, base_ejection_time=0.3, max_ejection_percent=50)
    breakers = cluster.circuit_breakers
    generous = replace(breakers.default, max_retries=1000)
    cluster = replace(cluster, outlier_detection=detection, circuit_breakers=replace(breakers, default=generous))
    return Mesh(StaticSource(static_snapshot({"payments": cluster}, retries=RETRIES, timeout=10)))


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    opened = DOORS[request.param]()
    yield opened
    opened.close()


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    running: list[RawServer] = []

    def start(script: Callable[[Peer], None]) -> RawServer:
        running.append(RawServer(script))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def assert_unharmed(mesh: Mesh, load: Load) -> None:
    assert load.failures == []
    assert load.calls > 100
    held = [cell for state in mesh.runtime.state.clusters.values() for cell in state.endpoints.values() if cell.active]
    assert held == [], "load that was never given back"


# With retries ------------------------------------------------------------------------------------------------------


def test_processes_killed_and_restarted_one_after_the_other(backend: Callable[..., Backend]) -> None:
    """HEAD: an answer whose head has come cannot be retried, and uvicorn writes head and body apart."""
    services = [backend(f"b{index}") for index in range(3)]
    with mesh_with_retries(*(service.address for service in services)) as mesh:
        with Load(mesh, "payments", "HEAD") as load:
            for service in services:
                load.during(0.3)
                service.kill()
                load.during(0.4)
                service.restart()
                load.during(0.4)
        assert_unharmed(mesh, load)


def test_a_process_that_freezes_and_wakes(backend: Callable[..., Backend]) -> None:
    services = [backend(f"b{index}") for index in range(3)]
    with mesh_with_retries(*(service.address for service in services)) as mesh:
        with Load(mesh, "payments") as load:
            load.during(0.3)
            services[0].pause()
            load.during(1.5)
            services[0].resume()
            load.during(0.5)
        assert_unharmed(mesh, load)
        assert load.slowest < 10 * RETRIES.per_try_timeout


@pytest.mark.parametrize("fault", ["reset", "close", "half-close", "hang"])
def test_a_backend_with_a_fault_then_well_again(fast_backend: Callable[..., FastBackend], fault: str) -> None:
    sick, *well = (fast_backend(f"b{index}") for index in range(3))
    with mesh_with_retries(*(service.address for service in (sick, *well))) as mesh:
        with Load(mesh, "payments") as load:
            load.during(0.2)
            sick.behave(fault=fault)
            load.during(1.0)
            sick.behave()
            before = sick.count
            load.during(1.0)
        assert_unharmed(mesh, load)
        assert sick.count > before, "the recovered endpoint is balanced to again"


def test_connections_cut_in_the_middle_of_everything(fast_backend: Callable[..., FastBackend]) -> None:
    services = [fast_backend(f"b{index}") for index in range(2)]
    with mesh_with_retries(*(service.address for service in services)) as mesh:
        with Load(mesh, "payments") as load:
            for _ in range(20):
                load.during(0.05)
                for service in services:
                    service.drop_connections()
        assert_unharmed(mesh, load)


# Without retries ---------------------------------------------------------------------------------------------------


def failing_call(door: Door, address: str) -> tuple[CallError, float]:
    """The error of a call that nothing is done about, and how long it took."""
    with Mesh.static({"payments": [address]}, timeout=LIMIT) as mesh:
        client = door.client(mesh)
        began = time.monotonic()
        with pytest.raises(CallError) as caught:
            client.get("/")
        return caught.value, time.monotonic() - began


@pytest.mark.parametrize(
    "fault, flag, at_least",
    [("reset", "UC", 0.0), ("close", "UC", 0.0), ("hang", "UT", LIMIT), ("truncate", "UPE", 0.0)],
)
def test_a_fault_has_its_flag_in_bounded_time(
    door: Door, fast_backend: Callable[..., FastBackend], fault: str, flag: str, at_least: float
) -> None:
    service = fast_backend("sick")
    service.behave(fault=fault)
    error, took = failing_call(door, service.address)
    assert error.flag is ResponseFlag(flag)
    assert at_least * 0.9 < took < at_least + NOISE
    assert service.count == 1, "nothing is sent twice unasked"


def test_a_dead_process_is_uf(door: Door, backend: Callable[..., Backend]) -> None:
    service = backend("dead")
    service.kill()
    error, took = failing_call(door, service.address)
    assert error.flag is ResponseFlag.UF
    assert took < NOISE


def test_a_frozen_process_is_ut(door: Door, backend: Callable[..., Backend]) -> None:
    service = backend("frozen")
    service.pause()
    error, took = failing_call(door, service.address)
    service.resume()
    assert error.flag is ResponseFlag.UT
    assert LIMIT * 0.9 < took < LIMIT + NOISE


def test_a_half_close_instead_of_an_answer_is_uc(door: Door, raw: Callable[..., RawServer]) -> None:
    """The server says it will send nothing more, and goes on listening."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.shutdown(socket.SHUT_WR)
        peer.wait()

    error, took = failing_call(door, f"127.0.0.1:{raw(script).port}")
    assert error.flag is ResponseFlag.UC
    assert took < NOISE


# Between requests --------------------------------------------------------------------------------------------------


def half_closes(peer: Peer) -> None:
    peer.head()
    peer.send(OK)
    peer.sock.shutdown(socket.SHUT_WR)
    peer.wait()


def closes(peer: Peer) -> None:
    peer.head()
    peer.send(OK)


def resets(peer: Peer) -> None:
    peer.head()
    peer.send(OK)
    time.sleep(0.005)  # the answer is read before the reset overtakes it
    with contextlib.suppress(OSError):
        peer.reset()


@pytest.mark.parametrize("script", [half_closes, closes, resets])
def test_idle_connections_that_end_without_a_word(
    door: Door, raw: Callable[..., RawServer], script: Callable[[Peer], None]
) -> None:
    """POSTs, never sent again: a connection that ended while idle must be noticed before it is used."""
    server = raw(script)
    with Mesh.static({"payments": [f"127.0.0.1:{server.port}"]}) as mesh:
        client = door.client(mesh)
        for _ in range(30):
            assert client.post("/", content=b"").status_code == 200
            time.sleep(0.015)
            client.settle()
    assert server.connections == 30
    assert len(server.heads) == 30


def test_a_crash_between_requests(door: Door, fast_backend: Callable[..., FastBackend]) -> None:
    service = fast_backend("restarting")
    with Mesh.static({"payments": [service.address]}) as mesh:
        client = door.client(mesh)
        for _ in range(30):
            assert client.post("/", content=b"x").status_code == 200
            service.drop_connections()
            client.settle()
    assert service.count == 30


def test_what_is_left_after_many_faults_is_nothing(door: Door, fast_backend: Callable[..., FastBackend]) -> None:
    service = fast_backend("sick")
    with Mesh.static({"payments": [service.address]}, timeout=0.1) as mesh:
        client = door.client(mesh)
        faults = ("reset", "close", "hang", "truncate", None)
        for index in range(50):
            service.behave(fault=faults[index % len(faults)])
            with contextlib.suppress(CallError):
                client.get("/")
        service.behave()
        assert client.get("/").status_code == 200
        state: Any = mesh.runtime.state.clusters["payments"]
        assert [cell for cell in state.endpoints.values() if cell.active] == []
        assert len(service.open_connections) <= 1
