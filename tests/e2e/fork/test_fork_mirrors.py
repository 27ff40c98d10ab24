"""Mirrored requests and forks: a child starts anew, and the parent's copies stay the parent's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.fork.configuration import assert_no_socket_is_shared
from parts.fast_backend import FastBackend, Reply, Request

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def hanging(request: Request) -> Reply:
    return Reply(fault="hang") if request.target == "/hang" else Reply()


@pytest.mark.parametrize("state", ["unused", "used"])
def test_a_forked_child_mirrors_anew(state: str, fast_backend: Callable[..., FastBackend]) -> None:
    up, shadow = fast_backend("up"), fast_backend("shadow", hanging)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(HERE / "forking_mirrors.py"),
            up.address,
            shadow.address,
        ],
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE.parents[1]}", "STATE": state},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    before = ["/hang", "/parent"] if state == "used" else []
    assert sorted(request.target for request in shadow.requests) == sorted([*before, "/child", "/after"])
    assert_no_socket_is_shared(up, shadow)
