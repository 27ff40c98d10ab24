"""Sticky sessions through every door: the client's own cookie jar carries them, and they outlive what they can."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from differential.calls_twin import EXTENSIONS, bootstrap, cluster, virtual_host
from e2e.http_client.doors import Door
from meshlib import Mesh
from meshlib.errors import NoHealthyUpstreamError
from parts.fast_backend import FastBackend

SESSION = f"{EXTENSIONS}.filters.http.stateful_session.v3.StatefulSession"
COOKIE = "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"


@pytest.mark.parametrize("strict", [False, True])
def test_a_client_stays_where_it_was(
    door: Door, fast_backend: Callable[..., FastBackend], meshes: list[Mesh], tmp_path: Path, strict: bool
) -> None:
    backends = [fast_backend(name) for name in "abc"]
    state = {
        "name": "envoy.http.stateful_session.cookie",
        "typed_config": {"@type": COOKIE, "cookie": {"name": "cart"}},
    }
    session = {"name": "session", "typed_config": {"@type": SESSION, "session_state": state, "strict": strict}}
    host = virtual_host([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}])

    def write(*left: FastBackend) -> None:
        made = bootstrap([host], [cluster("up", [backend.port for backend in left])], filters=[session])
        new = tmp_path / ".new"
        new.write_text(json.dumps(made))
        new.replace(tmp_path / "mesh.json")

    write(*backends)
    mesh = Mesh.from_file(tmp_path / "mesh.json", unknown_hosts="reject", seed=1)
    meshes.append(mesh)
    mesh.start().wait_ready()
    for _ in range(3):
        caller = door.client(mesh, "shop")
        first = caller.get("/")
        assert "cart" in first.cookies
        where = first.headers["x-backend"]
        again = [caller.get("/") for _ in range(5)]
        assert {answer.headers["x-backend"] for answer in again} == {where}
        assert not any("set-cookie" in answer.headers for answer in again)
    assert len({door.client(mesh, "shop").get("/").headers["x-backend"] for _ in range(6)}) == 3, "others are balanced"
    write(*(backend for backend in backends if backend.name != where))
    for _ in range(2000):
        if len(mesh.plan.clusters["up"].addresses) == 2:
            break
        time.sleep(0.005)
    if strict:
        with pytest.raises(NoHealthyUpstreamError):
            caller.get("/")
        return
    moved = caller.get("/")
    assert moved.headers["x-backend"] != where
    assert "cart" in moved.cookies, "it is told of its new endpoint"
    assert {caller.get("/").headers["x-backend"] for _ in range(5)} == {moved.headers["x-backend"]}
