"""The fork matrix on a real Consul: watches of their own in every process, nobody's socket shared, nothing hangs."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from e2e.fork.configuration import assert_no_socket_is_shared
from e2e.fork.test_gunicorn import WORKERS, Gunicorn
from e2e.fork.test_multiprocessing import lines_of, run
from parts.consul_server import ConsulServer
from parts.fast_backend import FastBackend

pytestmark = [pytest.mark.needs("consul"), pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]


@pytest.fixture
def own(consul_factory: Any) -> ConsulServer:
    """An agent of the test's own: the programs' services are called `payments` and `orders`."""
    made: ConsulServer = consul_factory()
    return made


def serve(consul: ConsulServer, backend: FastBackend) -> None:
    for service in ("payments", "orders"):
        consul.register(service, f"{service}-1", backend.port)


@pytest.mark.parametrize("state", ["imported", "starting-10", "started", "sync", "aio"])
def test_fork_over_consul(state: str, own: ConsulServer, fast_backend: Callable[..., FastBackend]) -> None:
    old, new = fast_backend("old"), fast_backend("new")
    serve(own, old)
    run("consul", own.address, state, "fork", lambda: serve(own, new))
    assert_no_socket_is_shared(old, new)


def test_forks_in_the_middle_of_everything(own: ConsulServer, fast_backend: Callable[..., FastBackend]) -> None:
    backends, done = [fast_backend("old"), fast_backend("new")], threading.Event()
    serve(own, backends[0])

    def swap() -> None:
        for backend in itertools.cycle(backends):
            if done.wait(0.05):
                return
            serve(own, backend)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        lines = lines_of("forking_under_load.py", "consul", own.address, on_ready=lambda: None)
    finally:
        done.set()
        swapping.join()
    assert lines == ["forked 25 children, all of which called; no call of the parent failed"]
    assert_no_socket_is_shared(*backends)


@pytest.mark.needs("gunicorn")
@pytest.mark.parametrize("door, master", [("asgi", "aio"), ("wsgi", "called")])
def test_gunicorn_with_preload(
    door: str, master: str, own: ConsulServer, servers: Any, fast_backend: Callable[..., FastBackend]
) -> None:
    old, new = fast_backend("old"), fast_backend("new")
    serve(own, old)
    gunicorn = servers.keep(Gunicorn(door, True, master, f"consul:{own.address}", servers.folder("gunicorn")))
    gunicorn.until(lambda seen: len({one["pid"] for one in seen}) == WORKERS, "both workers answer")
    serve(own, new)

    def all_updated(seen: list[dict[str, Any]]) -> bool:
        return len({one["pid"] for one in seen if one["backend"] == "new"}) == WORKERS

    gunicorn.until(all_updated, "the update reaches every worker")
    gunicorn.stop()
    log = gunicorn.process.log()
    assert "Traceback" not in log
    assert "pending" not in log, "tasks of the master's loop were freed in a worker"
    assert_no_socket_is_shared(old, new)
