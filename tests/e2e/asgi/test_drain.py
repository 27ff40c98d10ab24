"""SIGTERM under load: nobody who was served is refused.

Two instances behind a mesh client; what removes an instance is its readiness, asked every 20 ms, as a kubelet and a
control plane would between them.
"""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from e2e.asgi.shop import Shop
from meshlib import Mesh
from meshlib.sources.static import StaticSource, static_snapshot
from parts.load import Load

SERVERS = [pytest.param("uvicorn"), pytest.param("gunicorn", marks=pytest.mark.needs("gunicorn"))]


class Registry:
    """Keeps in the mesh the instances that are ready, and remembers when each stopped being so."""

    def __init__(self, *shops: Shop) -> None:
        self._shops = {shop.address: shop for shop in shops}
        self.source = StaticSource(self._snapshot(list(self._shops)))
        self.gone: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _snapshot(self, addresses: list[str]) -> Any:
        return static_snapshot({"shop": addresses}, timeout=10)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            for address, shop in self._shops.items():
                if address not in self.gone and (status := ready(shop)) != 200:
                    self.gone[address] = status
                    self.source.replace(self._snapshot([one for one in self._shops if one not in self.gone]))


def ready(shop: Shop) -> int:
    """The status of the readiness path; 0 when nobody listens."""
    try:
        return httpx.get(f"{shop.url}/ready").status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("server", SERVERS)
def test_an_instance_leaves_under_load_and_no_call_fails(shop: Callable[..., Shop], server: str) -> None:
    """POSTs, no retries: nothing is sent twice to hide a refusal."""
    leaving, staying = (shop(server=server, drain_seconds=1.0, readiness_path="/ready") for _ in range(2))
    registry = Registry(leaving, staying)
    try:
        with Mesh(registry.source) as mesh, Load(mesh, "shop", "POST", "/call?wait=0.005") as load:
            load.during(0.5)
            leaving.process.terminate()
            signalled = time.monotonic()
            assert leaving.exit_code() in (0, -signal.SIGTERM)
            took = time.monotonic() - signalled
            load.during(0.2)
    finally:
        registry.stop()
    assert load.failures == []
    assert load.calls > 100
    assert registry.gone == {leaving.address: 503}, "readiness says 503 while the listener still accepts"
    assert 0.9 < took < 5


@pytest.mark.parametrize("server", SERVERS)
def test_the_order_of_a_drain(shop: Callable[..., Shop], server: str) -> None:
    one = shop(server=server, drain_seconds=1.0, readiness_path="/ready")
    assert one_connection(one)[1] != "close"
    slow: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: slow.append(httpx.post(f"{one.url}/call?wait=1.6", timeout=10)))
    waiting.start()
    time.sleep(0.3)

    one.process.terminate()
    time.sleep(0.1)
    assert ready(one) == 503
    for _ in range(5):  # new connections are taken, and asked to close
        assert one_connection(one) == (200, "close")
    waiting.join(10)
    assert [response.status_code for response in slow] == [200], "what is in flight is finished"
    assert one.exit_code() in (0, -signal.SIGTERM)
    assert "application stops, calls still work: 200" in one.process.log()
    assert ready(one) == 0


def one_connection(shop: Shop) -> tuple[int, str | None]:
    """Status and `connection` header of a call over a new keep-alive connection."""
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
    connection.request("GET", "/call")
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.getheader("connection")


def test_a_second_signal_does_not_wait(shop: Callable[..., Shop]) -> None:
    one = shop(drain_seconds=30.0, readiness_path="/ready")
    one.process.terminate()
    time.sleep(0.2)
    assert ready(one) == 503
    began = time.monotonic()
    one.process.terminate()
    assert one.exit_code() in (0, -signal.SIGTERM)
    assert time.monotonic() - began < 3


def test_without_a_drain_the_server_ends_in_its_own_way(shop: Callable[..., Shop]) -> None:
    one = shop()
    began = time.monotonic()
    one.process.terminate()
    assert one.exit_code() in (0, -signal.SIGTERM)
    assert time.monotonic() - began < 3


def test_without_lifespan_the_first_request_installs_the_drain(shop: Callable[..., Shop]) -> None:
    one = shop(server="uvicorn without lifespan", drain_seconds=1.0, readiness_path="/ready")
    assert one_connection(one)[0] == 200
    one.process.terminate()
    time.sleep(0.1)
    assert ready(one) == 503
    assert one_connection(one) == (200, "close")
    assert one.exit_code() in (0, -signal.SIGTERM)
