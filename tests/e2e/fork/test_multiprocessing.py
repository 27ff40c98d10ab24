"""The table of forks: what the parent had done, how the child was made, and that both go on as if nothing had been.

The child's blocking client and its asyncio client work within seconds, inherited or new; changes reach parent and
children, over streams of their own; nobody shares a socket; nothing deadlocks.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.fork.configuration import assert_no_socket_is_shared, served, write
from meshlib.control.ads_server import AdsServer, ResourceStore
from parts.fast_backend import FastBackend

HERE = Path(__file__).parent
STATES = ("imported", "started", "sync", "aio")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def run(source: str, target: str, state: str, method: str, flip: Callable[[], None]) -> None:
    """Run the program, change the configuration once everybody has called, and wait for its good end."""
    assert sorted(lines_of("forking.py", source, target, state, method, on_ready=flip)) == [
        "child done",
        "child done",
        "parent done",
        "ready",
    ]


def lines_of(program: str, *arguments: str, on_ready: Callable[[], None]) -> list[str]:
    """What a program of this folder prints; it must end well and within a minute, and complain of nothing."""
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / program), *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE.parents[1]}"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line == "ready\n":
                on_ready()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return lines


@pytest.fixture
def old(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("old")


@pytest.fixture
def new(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("new")


@pytest.mark.parametrize("state", STATES)
def test_fork_over_a_control_plane(state: str, old: FastBackend, new: FastBackend) -> None:
    store = ResourceStore(served(old))
    with AdsServer(store) as server:
        run("xds", f"127.0.0.1:{server.port}", state, "fork", lambda: store.replace(served(new)))
    assert_no_socket_is_shared(old, new)


@pytest.mark.parametrize("state", STATES)
def test_fork_over_files(state: str, old: FastBackend, new: FastBackend, tmp_path: Path) -> None:
    write(tmp_path, old)
    run("file", str(tmp_path), state, "fork", lambda: write(tmp_path, new))
    assert_no_socket_is_shared(old, new)


@pytest.mark.parametrize("state", STATES)
def test_fork_with_configuration_in_code(state: str, old: FastBackend) -> None:
    run("static", old.address, state, "fork", lambda: None)
    assert_no_socket_is_shared(old)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_that_inherit_nothing(method: str, old: FastBackend, new: FastBackend) -> None:
    store = ResourceStore(served(old))
    with AdsServer(store) as server:
        run("xds", f"127.0.0.1:{server.port}", "aio", method, lambda: store.replace(served(new)))
    assert_no_socket_is_shared(old, new)


@pytest.mark.parametrize("milliseconds", [0, 10, 40, 80, 120, 160])
@pytest.mark.parametrize("source", ["xds", "file"])
def test_fork_while_the_source_starts(
    source: str, milliseconds: int, old: FastBackend, new: FastBackend, tmp_path: Path
) -> None:
    """Its thread may be in the middle of an import, of a step, of a delivery."""
    store = ResourceStore(served(old))
    write(tmp_path, old)

    def flip() -> None:
        store.replace(served(new))
        write(tmp_path, new)

    with AdsServer(store) as server:
        target = f"127.0.0.1:{server.port}" if source == "xds" else str(tmp_path)
        run(source, target, f"starting-{milliseconds}", "fork", flip)
    assert_no_socket_is_shared(old, new)


@pytest.mark.parametrize("source", ["xds", "file"])
def test_forks_in_the_middle_of_everything(source: str, old: FastBackend, new: FastBackend, tmp_path: Path) -> None:
    """Threads and a loop are calling and plans are being swapped at the moment of every fork."""
    store, done = ResourceStore(served(old)), threading.Event()
    write(tmp_path, old)

    def swap() -> None:
        for backend in itertools.cycle((new, old)):
            if done.wait(0.02):
                return
            store.replace(served(backend))
            write(tmp_path, backend)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        with AdsServer(store) as server:
            target = f"127.0.0.1:{server.port}" if source == "xds" else str(tmp_path)
            lines = lines_of("forking_under_load.py", source, target, on_ready=lambda: None)
    finally:
        done.set()
        swapping.join()
    assert lines == ["forked 25 children, all of which called; no call of the parent failed"]
    assert_no_socket_is_shared(old, new)
