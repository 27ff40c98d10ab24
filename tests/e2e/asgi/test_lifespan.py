"""Starting and stopping under a real server, in the right order, and said clearly when it does not work."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from e2e.asgi.shop import Shop
from parts.fast_backend import FastBackend


@pytest.mark.parametrize("framework", ["fastapi", "starlette"])
def test_the_mesh_outlives_the_applications_own_shutdown(shop: Callable[..., Shop], framework: str) -> None:
    one = shop(framework=framework)
    one.process.terminate()
    assert one.exit_code() in (0, -signal.SIGTERM)
    assert "application stops, calls still work: 200" in one.process.log()
    assert "Traceback" not in one.process.log()


@pytest.mark.parametrize(
    "options, reason",
    [({"fails": True}, "the application cannot start"), ({"broken": True}, "the mesh cannot start: ")],
)
def test_a_startup_that_fails_ends_the_server(
    servers: Any, stock: FastBackend, options: dict[str, bool], reason: str
) -> None:
    one = servers.keep(Shop(servers.folder("shop"), stock.address, **options))
    assert one.exit_code() == 3
    log = one.process.log()
    assert reason in log
    assert "Application startup failed" in log
    assert "application started" not in log
