"""A control plane that dies, hangs, comes back or talks nonsense: not one call fails, and afterwards changes arrive."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.faults.control_plane import ControlPlaneProcess, resources, write
from meshlib import Mesh, MeshError
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.errors import NotReadyError
from meshlib.flags import ResponseFlag
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.fast_backend import FastBackend
from parts.load import Load
from parts.relay import Relay
from parts.xds import eventually

HOST = "127.0.0.1"
PATIENCE = 20.0


@pytest.fixture
def old(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("old")


@pytest.fixture
def new(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("new")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "conf"
    made.mkdir()
    return made


@pytest.fixture
def mesh_of() -> Iterator[Callable[..., Mesh]]:
    meshes: list[Mesh] = []

    def make(target: str, **options: Any) -> Mesh:
        settings = {"declared": ["payments"], "unknown_hosts": "reject", **options}
        meshes.append(Mesh.from_xds(Bootstrap((XdsServer(target),)), **settings))
        return meshes[-1]

    yield make
    for mesh in meshes:
        began = time.monotonic()
        mesh.close()
        assert time.monotonic() - began < 2.5, "close hangs"


def follows(backend: FastBackend) -> None:
    """Calls reach the backend from some moment on."""
    before = backend.count
    eventually(lambda: backend.count > before, f"calls reach {backend.name}", PATIENCE)


def assert_unharmed(load: Load) -> None:
    assert load.failures == []
    assert load.calls > 100
    assert load.slowest < 3.0


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
def test_killed_and_restarted_with_a_change(
    servers: Any,
    free_port: Callable[[], int],
    folder: Path,
    mesh_of: Any,
    old: FastBackend,
    new: FastBackend,
    delta: bool,
) -> None:
    write(folder, old)
    plane = servers.keep(ControlPlaneProcess(folder, free_port()))
    mesh = mesh_of(plane.target, delta=delta).wait_ready()
    with Load(mesh, "payments") as load:
        for backend in (new, old):
            load.during(0.3)
            plane.kill()
            write(folder, backend)
            load.during(0.3)
            plane.restart()
            follows(backend)
    assert_unharmed(load)


def test_frozen_then_thawed(
    servers: Any, free_port: Callable[[], int], folder: Path, mesh_of: Any, old: FastBackend, new: FastBackend
) -> None:
    write(folder, old)
    plane = servers.keep(ControlPlaneProcess(folder, free_port()))
    mesh = mesh_of(plane.target).wait_ready()
    with Load(mesh, "payments") as load:
        load.during(0.2)
        plane.freeze()
        write(folder, new)
        load.during(1.5)
        plane.thaw()
        follows(new)
    assert_unharmed(load)


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
def test_every_answer_trickles(mesh_of: Any, old: FastBackend, new: FastBackend, delta: bool) -> None:
    """A few bytes at a time: start-up takes its time, calls do not notice, and a change arrives in the end."""
    store = ResourceStore(Resource.of_message(xds.message(*item)) for item in resources(old))
    with AdsServer(store) as server, Relay(server.port, piece=24, pause=0.01) as relay:
        mesh = mesh_of(f"{HOST}:{relay.port}", delta=delta).wait_ready(PATIENCE)
        with Load(mesh, "payments") as load:
            load.during(0.2)
            before = relay.pieces
            store.replace(Resource.of_message(xds.message(*item)) for item in resources(new))
            follows(new)
            assert relay.pieces > before + 5, "the change came in pieces"
    assert_unharmed(load)


class Babble:
    """Listens where the control plane was, and answers every connection with noise."""

    def __init__(self, port: int, noise: Callable[[], bytes]) -> None:
        self._listener = socket.create_server((HOST, port))
        self._noise = noise
        self.heard = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.heard.release()
                try:
                    connection.sendall(self._noise())
                except OSError:
                    continue

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


NOISE = {
    "random bytes": lambda: random.Random(7).randbytes(4096),
    "another protocol": lambda: b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("noise", NOISE)
def test_something_else_answers_on_its_port(
    servers: Any,
    free_port: Callable[[], int],
    folder: Path,
    mesh_of: Any,
    old: FastBackend,
    new: FastBackend,
    noise: str,
) -> None:
    write(folder, old)
    port = free_port()
    plane = servers.keep(ControlPlaneProcess(folder, port))
    mesh = mesh_of(plane.target).wait_ready()
    with Load(mesh, "payments") as load:
        plane.kill()
        babble = Babble(port, NOISE[noise])
        try:
            for _ in range(2):
                assert babble.heard.acquire(timeout=PATIENCE)
        finally:
            babble.stop()
        write(folder, new)
        plane.restart()
        follows(new)
    assert_unharmed(load)


GARBAGE = {
    LISTENER: {"name": "payments", "api_listener": {}},
    ROUTE_CONFIGURATION: xds.route_configuration("routes", {"match": {}, "route": {"cluster": "payments"}}),
    CLUSTER: xds.eds_cluster("payments", connect_timeout="-1s"),
    CLUSTER_LOAD_ASSIGNMENT: xds.assignment("payments", xds.endpoint("not an address", 70000)),
}


@pytest.mark.parametrize("type_url", GARBAGE, ids=lambda type_url: type_url.rpartition(".")[2])
@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
def test_resources_that_are_garbage(
    mesh_of: Any, old: FastBackend, new: FastBackend, type_url: str, delta: bool
) -> None:
    """Well-formed nonsense, then bytes that are no protobuf at all; then something good again."""

    def bad_bytes() -> Resource:
        (good,) = (item for item in served if item.type_url == type_url)
        return Resource(type_url, good.name, "broken", good.body + b"\xff\xff\xff\x07garbage")

    served = [Resource.of_message(xds.message(*item)) for item in resources(old)]
    others = [item for item in served if item.type_url != type_url]
    store = ResourceStore(served)
    with AdsServer(store) as server:
        mesh = mesh_of(f"{HOST}:{server.port}", delta=delta).wait_ready()
        with Load(mesh, "payments") as load:
            store.replace([*others, Resource.of_message(xds.message(type_url, GARBAGE[type_url]))])
            eventually(lambda: any(issue.severity == "error" for issue in mesh.issues), "the refusal", PATIENCE)
            known = len(mesh.issues)
            store.replace([*others, bad_bytes()])
            eventually(lambda: len(mesh.issues) > known, "the second refusal", PATIENCE)
            load.during(0.2)
            store.replace(Resource.of_message(xds.message(*item)) for item in resources(new))
            follows(new)
    assert_unharmed(load)


# Nothing there -----------------------------------------------------------------------------------------------------


def test_no_control_plane_at_all_is_said_in_time_and_repaired_when_it_appears(
    servers: Any, free_port: Callable[[], int], folder: Path, mesh_of: Any, new: FastBackend
) -> None:
    port = free_port()
    mesh = mesh_of(f"{HOST}:{port}", fetch_timeout=0.5)
    began = time.monotonic()
    with pytest.raises(NotReadyError, match=r"no usable configuration .* within 0\.3 s"):
        mesh.wait_ready(0.3)
    assert time.monotonic() - began < 2

    with mesh.http.client("payments") as client:
        began = time.monotonic()
        with pytest.raises(MeshError, match=r"no configuration for 'payments' arrived within 0\.5 s") as caught:
            client.get("/")
        assert 0.4 < time.monotonic() - began < 2
        assert caught.value.flag is ResponseFlag.NFCF
        assert isinstance(caught.value, httpx.TransportError)

        write(folder, new)
        servers.keep(ControlPlaneProcess(folder, port))
        mesh.wait_ready(PATIENCE)
        assert client.get("/").json()["name"] == "new"


async def test_a_call_that_waits_is_served_when_the_control_plane_appears(
    servers: Any, free_port: Callable[[], int], folder: Path, mesh_of: Any, new: FastBackend
) -> None:
    port = free_port()
    mesh = mesh_of(f"{HOST}:{port}", declared=[])
    write(folder, new)
    starting = threading.Timer(0.3, lambda: servers.keep(ControlPlaneProcess(folder, port)))
    starting.start()
    async with mesh.http.async_client("payments") as client:
        assert (await client.get("/")).json()["name"] == "new"
    starting.join()


def test_files_that_are_not_there_yet(tmp_path: Path, new: FastBackend) -> None:
    folder = tmp_path / "later"
    with Mesh.from_file(folder, unknown_hosts="reject", fetch_timeout=0.3) as mesh:
        with pytest.raises(NotReadyError, match="later"):
            mesh.wait_ready(0.3)
        with mesh.http.client("payments") as client:
            with pytest.raises(MeshError) as caught:
                client.get("/")
            assert caught.value.flag is ResponseFlag.NFCF
            folder.mkdir()
            write(folder, new)
            mesh.wait_ready(PATIENCE)
            assert client.get("/").json()["name"] == "new"


def test_a_mesh_that_could_not_start_can_be_started_again(monkeypatch: pytest.MonkeyPatch, new: FastBackend) -> None:
    for name in ("GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    store = ResourceStore(Resource.of_message(xds.message(*item)) for item in resources(new))
    mesh = Mesh.from_xds(declared=["payments"])
    for _ in range(2):
        with pytest.raises(MeshError, match="GRPC_XDS_BOOTSTRAP"):
            mesh.start()
    with AdsServer(store) as server:
        bootstrap = {"xds_servers": [{"server_uri": f"{HOST}:{server.port}", "channel_creds": [{"type": "insecure"}]}]}
        monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", json.dumps(bootstrap))
        with mesh, mesh.http.client("payments") as client:
            assert client.get("/").json()["name"] == "new"
