"""`make demo-consul`'s program: on a real Consul it keeps its promises, and without one it says what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parts.registry import path_of

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "examples.demo_consul", "--pace", "0.2"]
PROMISES = 15


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([*DEMO, *options], cwd=ROOT, capture_output=True, text=True, timeout=150, env=env)


@pytest.mark.needs("consul")
@pytest.mark.timeout(180)
def test_it_keeps_every_promise_on_a_real_consul() -> None:
    done = run(PATH=f"{Path(path_of('consul')).parent}{os.pathsep}{os.environ['PATH']}")
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert f"all {PROMISES} promises kept" in done.stdout
    assert "BROKEN" not in done.stdout
    assert re.search(r"^ +failed +0 *$", done.stdout, re.MULTILINE)


def test_without_a_consul_it_names_the_remedy(tmp_path: Path) -> None:
    done = run(PATH=str(tmp_path), MESHLIB_SERVERS_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "make servers" in done.stderr
