"""A service in a real Consul: there when it can serve, well while it is, gone before it stops, and never flapping."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshlib.registration import ConsulRegistration, HttpCheck, TtlCheck
from meshlib.sources.consul import load_settings
from parts.consul_server import ConsulServer
from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.load import Load
from parts.process import Process
from parts.xds import eventually

pytestmark = pytest.mark.needs("consul")

Backends = Callable[..., FastBackend]
PATIENCE = 20.0


class History:
    """Every state an instance goes through in the catalog, by a blocking query of our own."""

    def __init__(self, consul: ConsulServer, service: str) -> None:
        self.states: list[str] = []
        self._consul, self._service = consul, service
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            try:
                found = self._consul.health(self._service)
            except OSError:
                continue
            state = next(iter(found.values()), "gone")
            if not self.states or self.states[-1] != state:
                self.states.append(state)

    def stop(self) -> list[str]:
        self._done.set()
        self._thread.join(5)
        return self.states


@contextmanager
def history(consul: ConsulServer, service: str) -> Iterator[History]:
    seen = History(consul, service)
    eventually(lambda: seen.states, "the first look")
    try:
        yield seen
    finally:
        seen.stop()


def registration(consul: ConsulServer, service: str, port: int, **options: Any) -> ConsulRegistration:
    options.setdefault("check", TtlCheck(1.0))
    return ConsulRegistration(
        service, port=port, address="127.0.0.1", settings=load_settings(consul.address), **options
    )


def test_what_is_registered(consul: ConsulServer, name: str, fast_backend: Backends) -> None:
    backend = fast_backend("one")
    options = {"tags": ["v1", "blue"], "meta": {"version": "v1"}, "weights": (5, 2), "locality": ("eu", "eu-1")}
    with registration(consul, name, backend.port, **options) as registered:
        assert registered.wait_registered()
        row = consul.request("GET", f"/v1/health/service/{name}")[0]
        service = row["Service"]
        assert (service["ID"], service["Address"], service["Port"]) == (
            f"{name}-127.0.0.1-{backend.port}",
            "127.0.0.1",
            backend.port,
        )
        assert (service["Tags"], service["Meta"]) == (["v1", "blue"], {"version": "v1"})
        assert service["Weights"] == {"Passing": 5, "Warning": 2}
        assert service["Locality"] == {"Region": "eu", "Zone": "eu-1"}
        check = next(check for check in row["Checks"] if check["ServiceName"] == name)
        assert (check["Status"], check["Type"], check["CheckID"]) == ("passing", "ttl", f"service:{service['ID']}")
    assert consul.health(name) == {}


def test_it_beats_and_does_not_flap(consul: ConsulServer, name: str, fast_backend: Backends) -> None:
    """Longer than two times to live, and a second start of the same instance in the middle."""
    port = fast_backend("one").port
    with history(consul, name) as seen, registration(consul, name, port) as registered:
        assert registered.wait_registered()
        time.sleep(1.2)
        again = registration(consul, name, port).start()
        assert again.wait_registered()
        time.sleep(1.2)
        assert seen.stop() == ["gone", "passing"]
        again.close()


def test_it_is_registered_when_its_port_is_open_and_not_before(
    consul: ConsulServer, name: str, free_port: Callable[[], int], servers: Servers
) -> None:
    port = free_port()
    with registration(consul, name, port) as registered:
        assert not registered.wait_registered(0.3)
        assert consul.health(name) == {}
        log = servers.folder("server") / "server.log"
        servers.keep(Process([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], log))
        assert registered.wait_registered()
    with registration(consul, f"{name}-never", free_port()):
        pass
    assert consul.health(f"{name}-never") == {}


def test_its_own_word_on_its_health(consul: ConsulServer, name: str, fast_backend: Backends) -> None:
    well = [True]
    with registration(consul, name, fast_backend("one").port, is_healthy=lambda: well[0]) as registered:
        assert registered.wait_registered()
        well[0] = False
        eventually(lambda: "critical" in consul.health(name).values(), "unwell")
        well[0] = True
        eventually(lambda: "passing" in consul.health(name).values(), "well again")


def test_the_agent_can_look_for_itself(consul: ConsulServer, name: str, fast_backend: Backends) -> None:
    backend = fast_backend("one")
    check = HttpCheck(f"{backend.url}/health", interval=0.2, verify=0.2)
    with registration(consul, name, backend.port, check=check):
        eventually(lambda: "passing" in consul.health(name).values(), "found well")
        backend.behave(status=503)
        eventually(lambda: "critical" in consul.health(name).values(), "found unwell")
        backend.behave()
        eventually(lambda: "passing" in consul.health(name).values(), "found well again")
        consul.deregister(f"{name}-127.0.0.1-{backend.port}")  # somebody else's mistake
        eventually(lambda: "passing" in consul.health(name).values(), "it comes back, and as what it was")
    assert consul.health(name) == {}


def test_an_agent_that_was_killed_or_lost_its_state(consul_factory: Any, mesh_of: Any, fast_backend: Backends) -> None:
    """Registered instances, a mesh that calls them, and an agent that comes back empty: everything is found again."""
    consul = consul_factory()
    backend = fast_backend("one")
    with registration(consul, "payments", backend.port) as registered:
        assert registered.wait_registered()
        mesh = mesh_of(consul, "payments", reset_grace=3.0)
        with Load(mesh, "payments") as load:
            consul.kill()
            load.during(0.5)
            consul.restart()
            eventually(lambda: "passing" in consul.health("payments").values(), "registered again", PATIENCE)
            load.during(3.2)
        assert load.failures == []
        consul.pause()
        time.sleep(0.5)
        consul.resume()
        eventually(lambda: "passing" in consul.health("payments").values(), "after a freeze as well")
    assert consul.health("payments") == {}


def test_it_leaves_before_its_server_stops(
    consul: ConsulServer, name: str, mesh_of: Any, servers: Servers, free_port: Callable[[], int]
) -> None:
    """SIGTERM under load: deregistered, then drained, then closed; not one call fails, without any retry."""
    started: list[tuple[Process, int]] = []
    for _ in range(2):
        port = free_port()
        environment = {"SERVICE": name, "PORT": str(port), "CONSUL_HTTP_ADDR": consul.address}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-m", "uvicorn", "registered_app:app", "--port", str(port), "--log-level", "warning"]
        command += ["--app-dir", str(Path(__file__).parent)]
        log = servers.folder("app") / "app.log"
        started.append((servers.keep(Process(command, log, environment)), port))
    eventually(lambda: list(consul.health(name).values()) == ["passing"] * 2, "both are there", PATIENCE)
    mesh = mesh_of(consul, name)
    with Load(mesh, name) as load:
        load.during(0.3)
        leaving, port = started[0]
        leaving.terminate()
        eventually(lambda: len(consul.health(name)) == 1, "deregistered")
        assert leaving.running, "it still serves"
        eventually(lambda: not leaving.running, "and then ends", PATIENCE)
        load.during(0.2)
    assert load.failures == []
    assert list(consul.health(name)) == [f"{name}-127.0.0.1-{started[1][1]}"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_say(consul: ConsulServer, name: str, fast_backend: Backends) -> None:
    with registration(consul, name, fast_backend("one").port) as registered:
        assert registered.wait_registered()
        child = os.fork()
        if child == 0:
            registered.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert "passing" in consul.health(name).values()
        time.sleep(1.2)
        assert "passing" in consul.health(name).values(), "the parent goes on beating"
