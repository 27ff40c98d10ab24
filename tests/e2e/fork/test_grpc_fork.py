"""The table of forks for gRPC: what the parent had done with its channels, and that the child's calls work.

What does not work in grpcio itself (`meshlib.grpc.forked`) is refused with the reason: nothing hangs, nothing dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.xds import api_listener, cluster, endpoints, resources, routes

HERE = Path(__file__).parent
PATIENCE = 40.0
STATES = ("imported", "used", "closed", "streaming", "aio_over", "aio_alive")
REFUSED = {("aio_alive", "aio")}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forked(target: str, stubs: Stubs, state: str, child: str, support: str | None = None) -> list[str]:
    """What the program says; whatever hangs is ended, with all its processes."""
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE.parents[1]}"}
    environment.pop("GRPC_ENABLE_FORK_SUPPORT", None)
    if support is not None:
        environment["GRPC_ENABLE_FORK_SUPPORT"] = support
    argv = [sys.executable, str(HERE / "grpc_forking.py"), target, str(stubs.folder), state, child]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        said, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, errors = process.communicate()
        return [*said.splitlines(), "hangs"]
    assert process.returncode == 0, errors
    return said.splitlines()


@pytest.fixture
def address(echo_backends: Callable[[int], list[GrpcBackend]]) -> str:
    return echo_backends(1)[0].address


@pytest.mark.parametrize("child", ["sync", "aio"])
@pytest.mark.parametrize("state", STATES)
def test_forks(address: str, grpc_stubs: Stubs, state: str, child: str) -> None:
    expected = ["child refused" if (state, child) in REFUSED else "child ok", "parent ok"]
    # With a thread inside it grpcio does not prepare for the fork, and one child in some 200 dies.
    tries = 3 if state == "streaming" else 1
    assert expected in (forked(f"static={address}", grpc_stubs, state, child) for _ in range(tries))


@pytest.mark.parametrize("child", ["sync", "aio"])
@pytest.mark.parametrize("state", STATES)
def test_forks_without_grpcios_support(address: str, grpc_stubs: Stubs, state: str, child: str) -> None:
    """Where the parent had called at all."""
    expected = "ok" if state == "imported" else "refused"
    assert forked(f"static={address}", grpc_stubs, state, child, "0") == [f"child {expected}", "parent ok"]


@pytest.mark.parametrize("state, child", [("used", "sync"), ("used", "aio"), ("aio_alive", "sync")])
def test_forks_over_a_control_plane(address: str, grpc_stubs: Stubs, state: str, child: str) -> None:
    """The source's own stream is gRPC too."""
    host, _, port = address.rpartition(":")
    served: list[Any] = resources(
        api_listener("payments", "routes"), routes("routes", "all"), cluster("all"), endpoints("all", (host, int(port)))
    )
    with AdsServer(ResourceStore(served)) as server:
        target = f"xds=127.0.0.1:{server.port}"
        assert forked(target, grpc_stubs, state, child) == ["child ok", "parent ok"]
