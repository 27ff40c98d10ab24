"""A test that needs a part: run, skipped and counted, or failed where the part is required.

A slow test: left out and counted, unless asked for.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SUITE = """
import pytest

@pytest.mark.needs("redis")
def test_marked(): pass

def test_by_fixture(redis_server): pass

@pytest.mark.needs("gunicorn")
def test_there(): pass
"""


SLOW = """
import pytest

@pytest.mark.slow
def test_long(): pass

@pytest.mark.parametrize("count", [1, pytest.param(1000, marks=pytest.mark.slow)])
def test_short_and_long(count): pass
"""


@pytest.fixture
def run_suite(tmp_path):
    """Run SUITE on a machine whose PATH is empty: nothing but what PyPI brought is there."""

    def run(suite: str = SUITE, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["parts.plugin", "parts.fixtures"]\n')
        (tmp_path / "test_suite.py").write_text(suite)
        kept = {key: value for key, value in os.environ.items() if key != "MESHLIB_REQUIRE_PARTS"}
        empty = tmp_path / "nothing"
        pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers"]
        return subprocess.run(
            [*pytest_, *options, "--rootdir", str(tmp_path), str(tmp_path)],
            cwd=tmp_path,
            env={**kept, "PATH": str(empty), "PYTHONPATH": str(TESTS), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_missing_part_is_skipped_and_listed(run_suite):
    done = run_suite()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT TESTED for want of redis (apt: redis-server): 2 tests" in done.stdout
    assert "1 passed, 2 skipped" in done.stdout


def test_workers_tell_what_they_did_not_test(run_suite):
    done = run_suite(SUITE + SLOW.replace("import pytest", ""), "-n", "2", "--dist", "load")
    assert "NOT TESTED for want of redis (apt: redis-server): 2 tests" in done.stdout
    assert "NOT TESTED because slow (make soak, or pytest -m slow): 2 tests" in done.stdout
    assert "2 passed, 2 skipped" in done.stdout


@pytest.mark.parametrize("required", ["redis", "1", "gunicorn, redis"])
def test_a_missing_part_fails_where_it_is_required(run_suite, required):
    done = run_suite(MESHLIB_REQUIRE_PARTS=required)
    assert done.returncode == 1
    assert "required but not on this machine: redis (apt: redis-server)" in done.stdout
    assert "1 passed, 2 errors" in done.stdout


def test_other_parts_may_be_required_without_harm(run_suite):
    assert run_suite(MESHLIB_REQUIRE_PARTS="gunicorn").returncode == 0


def test_a_part_nobody_knows_is_a_mistake(run_suite):
    assert "needs unknown parts: rediss" in run_suite(SUITE.replace("redis", "rediss")).stderr
    assert "names unknown parts: reddis" in run_suite(MESHLIB_REQUIRE_PARTS="reddis").stderr


def test_a_slow_test_is_left_out_and_counted(run_suite):
    done = run_suite(SLOW)
    assert "1 passed, 2 deselected" in done.stdout
    assert "NOT TESTED because slow (make soak, or pytest -m slow): 2 tests" in done.stdout


@pytest.mark.parametrize("asked, told", [("slow", "2 passed, 1 deselected"), ("slow or not slow", "3 passed")])
def test_slow_tests_are_run_when_asked_for(run_suite, asked, told):
    done = run_suite(SLOW, "-m", asked)
    assert told in done.stdout
    assert "NOT TESTED" not in done.stdout
