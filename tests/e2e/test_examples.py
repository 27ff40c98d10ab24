"""Every example runs, as its docstring says, and shows what it claims."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from parts.fixtures import Servers
from parts.process import Process

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
LONGEST = 60  # lines; an example that needs more is two

SAYS = {
    "static_client": [
        r"200 from \w+: cluster payments",
        r"100 calls succeeded",
        r"20 at once",
        r"flag UF after 3 attempts",
    ],
    "sync_threads": [r"2000 calls by 8 threads", r"'cluster\.stable\.upstream_rq_total': 1[78]\d\d"],
    "pybreaker_and_limits": [r"breaker: closed -> open", r"500: 3.*True\): 7", r"'OK': 5, 'refused, RL': 7"],
    "xds_client": [r"configured: old answers", r"version 2: new answers"],
    "canary_files": [r"by header: canary", r"10 % wanted: (\d|1\d)\.\d %", r"100 % wanted: 100\.0 %"],
}


@pytest.mark.parametrize("name", SAYS)
def test_a_script_shows_what_it_claims(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for pattern in SAYS[name]:
        assert re.search(pattern, done.stdout), f"{pattern!r} is not in:\n{done.stdout}"


def test_every_script_is_run_here() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} | {
        path.parent.name for path in EXAMPLES.glob("*/__main__.py")
    }
    assert scripts - {"tiny_server", "tiny_limits", "demo", "demo_consul"} == set(SAYS)


def test_examples_are_short() -> None:
    files = [path for path in EXAMPLES.rglob("*.py") if not {"demo", "demo_consul"} & set(path.parts)]
    assert {path.name: lines for path in files if (lines := len(path.read_text().splitlines())) > LONGEST} == {}


def test_the_fastapi_app_hands_trace_and_deadline_on_and_limits(
    tmp_path: Path, servers: Servers, free_port: Callable[[], int]
) -> None:
    def serve(name: str, **env: str) -> str:
        port = free_port()
        argv = [sys.executable, "-m", "uvicorn", f"examples.fastapi_app.{name}:app", "--port", str(port)]
        process = servers.keep(Process(argv, tmp_path / f"{name}.log", {**env, "PYTHONPATH": str(ROOT)}))
        process.wait_line("Uvicorn running on")
        return f"127.0.0.1:{port}"

    shop = serve("shop", PAYMENTS=serve("payments"))
    trace = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    headers = {"traceparent": trace, "x-request-id": "me", "x-envoy-expected-rq-timeout-ms": "900"}
    with httpx.Client(base_url=f"http://{shop}") as client:
        assert client.get("/ready").status_code == 200
        seen = client.post("/checkout", headers=headers).raise_for_status().json()["payments_saw"]
        assert seen["traceparent"] == trace
        assert seen["x-request-id"] == "me"
        assert 0 < int(seen["x-envoy-expected-rq-timeout-ms"]) <= 900
        statuses = [client.post("/checkout").status_code for _ in range(60)]
        assert 429 in statuses
        assert set(statuses) == {200, 429}
