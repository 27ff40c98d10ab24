"""One mesh and one client for each service in a process."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from meshlib import ConfigurationError, Mesh
from meshlib.process import ProcessMesh


def process(**settings: Any) -> ProcessMesh:
    return ProcessMesh(lambda: {"STATIC": {"payments": ["127.0.0.1:1"]}, **settings})


def test_everything_is_made_once_and_not_before() -> None:
    read: list[int] = []

    def settings() -> dict[str, Any]:
        read.append(1)
        return {"STATIC": {"payments": ["127.0.0.1:1"]}, "RATE_LIMITS": ["5/hour"]}

    own = ProcessMesh(settings)
    assert read == []
    assert own.mesh is own.mesh
    assert own.inbound is own.inbound
    assert own.inbound.mesh is own.mesh
    assert own.client("payments") is own.client("payments")
    assert own.client("payments") is not own.client("orders")
    assert own.async_client("payments") is own.async_client("payments")
    assert not own.mesh._started, "nothing starts before the first call"
    own.close()


def test_threads_that_ask_at_once_get_the_same() -> None:
    own, gate, found = process(), threading.Barrier(8), list[tuple[Mesh, Any]]()

    def ask() -> None:
        gate.wait()
        found.append((own.mesh, own.client("payments")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(mesh) for mesh, _ in found}) == 1
    assert len({id(client) for _, client in found}) == 1
    own.close()


def test_after_closing_everything_is_made_anew() -> None:
    own = process()
    before = own.mesh.start()
    own.close()
    assert not before._started
    assert own.mesh is not before
    own.close()
    own.close()


def test_wrong_settings_are_told_when_the_mesh_is_needed() -> None:
    own = process(UNKNOWN_HOSTS="no")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="UNKNOWN_HOSTS"):
            _ = own.mesh
