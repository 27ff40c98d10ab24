"""An endpoint that leaves the configuration: what is in flight ends well, what comes later goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.http_client.doors import DOORS, Door
from meshlib import Mesh
from meshlib.sources.static import StaticSource, static_snapshot
from parts.backend import Backend
from parts.fast_backend import FastBackend, Reply, Request
from parts.xds import eventually


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    opened = DOORS[request.param]()
    yield opened
    opened.close()


def snapshot(*endpoints: Any) -> Any:
    return static_snapshot({"payments": [endpoint.address for endpoint in endpoints]}, timeout=10)


def test_a_body_that_is_being_read_is_read_to_its_end(
    door: Door, backend: Callable[..., Backend], fast_backend: Callable[..., FastBackend]
) -> None:
    leaving, staying = backend("leaving"), fast_backend("staying")
    source = StaticSource(snapshot(leaving))
    with Mesh(source) as mesh:
        client = door.client(mesh)
        response = client.open("GET", "/?size=100000&chunks=20&chunk_delay=0.01")
        pieces = client.chunks(response)
        first = next(pieces)
        source.replace(snapshot(staying))
        assert client.get("/").json()["name"] == "staying"  # the pool of the other is drained now
        assert len(first) + sum(map(len, pieces)) == 100_000
        client.close_response(response)
        assert client.get("/").json()["name"] == "staying"


def test_answers_that_are_waited_for_come(door: Door, fast_backend: Callable[..., FastBackend]) -> None:
    """The swap happens when all requests are with the backend and none is answered."""
    leaving, staying = fast_backend("leaving"), fast_backend("staying")
    source = StaticSource(snapshot(leaving))

    def swap_at_the_last(request: Request) -> Reply:
        if leaving.count == 8:
            source.replace(snapshot(staying))
        return Reply(delay=0.1)

    leaving.behave(swap_at_the_last)
    with Mesh(source) as mesh:
        client = door.client(mesh)
        answers = client.together([("POST", "/")] * 8)
        assert [answer.json()["name"] for answer in answers] == ["leaving"] * 8
        assert client.post("/").json()["name"] == "staying"
        client.settle()
        eventually(lambda: not leaving.open_connections, "its idle connections are closed")
    assert leaving.count == 8


def test_an_endpoint_that_comes_and_goes(door: Door, fast_backend: Callable[..., FastBackend]) -> None:
    """Fifty times; connections of its earlier lives are not kept, and no POST is lost."""
    one, other = fast_backend("one"), fast_backend("other")
    source = StaticSource(snapshot(one))
    with Mesh(source) as mesh:
        client = door.client(mesh)
        for turn in range(50):
            there = (one, other)[turn % 2]
            source.replace(snapshot(there))
            assert [client.post("/").json()["name"] for _ in range(2)] == [there.name] * 2
            client.settle()
        gone = one if there is other else other
        eventually(lambda: not gone.open_connections, "its idle connections are closed")
        assert len(there.open_connections) == 1
    assert (one.count, other.count) == (50, 50)
