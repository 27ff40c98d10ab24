"""Faults and forks: what code has said holds in a child, its switch is its own, and nothing of the parent's counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parts.fast_backend import FastBackend

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def test_a_forked_child_injects_anew(fast_backend: Callable[..., FastBackend]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(HERE / "forking_faults.py"),
            fast_backend("up").address,
        ],
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE.parents[1]}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["child 0 0 503 418 200 200", "parent 503 418 503 418 0 4"],
    ), done.stderr
