"""`python -m benchmarks --quick` measures all it names and writes its page. What it measures is not judged here."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from benchmarks.consul import binary as consul_binary

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One quick run; what it printed and the folder it wrote to."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(folder / "out"), "--docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_target_has_a_verdict(run: tuple[str, Path]) -> None:
    from benchmarks.targets import TARGETS

    printed, _ = run
    for target in TARGETS:
        line = next(line for line in printed.splitlines() if line.strip().startswith(f"{target.name}  "))
        assert line.endswith(("ok", "missed", "not measured"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_figure_of_a_call_is_there_and_positive(run: tuple[str, Path]) -> None:
    results: dict[str, Any] = json.loads((run[1] / "out" / "results.json").read_text())
    for mine in ("meshlib (httpx)", "meshlib (httpx2)", "httpx", "httpx2"):
        calls = results["calls"]
        assert calls["latency"][mine]["p99"] >= calls["latency"][mine]["p50"] > 0
        assert all(rate > 0 for rate in calls["throughput"][mine].values())
        for bodies in ("bodies", "sync_bodies"):
            assert set(calls[bodies][mine]) == {"download", "streamed download", "upload", "streamed upload"}
            assert all(rate > 0 for rate in calls[bodies][mine].values())
        assert calls["sync_latency"][mine]["p50"] > 0
        assert calls["threads"][mine] > 0
        assert all(time > 0 for time in calls["sync_kinds"][mine].values())
    for part in ("latency", "sync_latency"):
        assert "meshlib (httpx), transport in a client of your own" in calls[part]
        assert ("meshlib (httpx), and a limit shared by Redis" in calls[part]) == (which("redis-server") is not None)
    assert all(cost > 0 for costs in results["parsers"].values() for cost in costs.values())
    changes = {"files", "control plane, SotW", "control plane, delta"}
    by_consul = {"Consul, from the write", "Consul, from its answer to the write"}
    assert set(results["servers"]) == {"asgi", "wsgi", "django", "functions"}
    # Differences of two timings, of which a busy machine may make the larger one the smaller.
    assert all(-100 < cost < 10_000 for costs in results["servers"].values() for cost in costs.values())
    assert set(results["changes"]) == changes | (by_consul if consul_binary() else set())
    assert all(cost > 0 for costs in results["decisions"].values() for cost in costs.values())
    assert all(cost > 0 for costs in results["telemetry"]["call"].values() for cost in costs.values())
    assert all(cost > 0 for part in results["routing"].values() for costs in part.values() for cost in costs.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_shows_the_tables_and_the_plots_that_were_drawn(run: tuple[str, Path]) -> None:
    folder = run[1]
    page = (folder / "benchmarks.md").read_text()
    assert "| async p50, 1 in flight, to bare httpx |" in page
    drawn = {path.name for path in (folder / "images" / "benchmarks").glob("*.png")}
    assert drawn == (
        {"throughput.png", "latency.png", "bodies.png", "routing.png"} if find_spec("matplotlib") else set()
    )
    assert all(f"images/benchmarks/{name}" in page for name in drawn)


def test_a_missed_target_fails_only_a_check() -> None:
    from benchmarks.targets import TARGETS, judge

    nothing = judge({})
    assert [verdict.met for verdict in nothing] == [None] * len(TARGETS)
    slow = judge({"decisions": {"by_endpoints": {"1": 99.0, "10000": 3.0}, "by_routes": {}}})
    met = {verdict.target.name: verdict.met for verdict in slow}
    assert met["decision, one endpoint"] is False
    assert met["decision, 10 000 endpoints"] is True
