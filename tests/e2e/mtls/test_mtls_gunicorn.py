"""gunicorn with uvicorn's workers and mutual TLS: every worker knows its callers and follows the files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.mtls.workloads import CLIENT_ID, Intruder, client_to, pair_of_workloads
from meshlib.identity.dev_ca import DevCA
from parts.process import Process
from parts.xds import eventually

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.needs("gunicorn"), pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each for itself", "preload"])
def test_every_worker_follows(preload: list[str], tmp_path: Path, servers: Any) -> None:
    with pair_of_workloads() as pair:
        argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--bind", "127.0.0.1:0"]
        argv += ["--workers", "2", "--worker-class", "e2e.mtls.gunicorn_mtls.Worker", "--graceful-timeout", "5"]
        environment = {
            "CERTIFICATES": str(pair.server.folder),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        }
        command = [*argv, *preload, "e2e.mtls.gunicorn_mtls:app"]
        server = servers.keep(Process(command, tmp_path / "gunicorn.log", environment))
        port = int(server.wait_line(r"Listening at: http://127.0.0.1:(\d+)")[1])

        with client_to(port, pair.client.identity) as client:

            def ask() -> tuple[str, str, int]:
                pid, serial, anchors, caller = client.get("/").text.split()
                assert caller == CLIENT_ID
                return pid, serial, int(anchors)

            def workers_have(anchors: int) -> bool:
                """Whether both have what the files hold."""
                found = pair.server.identity.current.pair
                assert found is not None
                answers = [ask() for _ in range(20)]
                return len({pid for pid, *rest in answers if rest == [found.leaf.serial, anchors]}) == 2

            eventually(lambda: workers_have(1), "both workers serve", 20)
            old, new = pair.authority, DevCA.new()
            intruder = Intruder(port, old.issue(CLIENT_ID), [old, new])
            assert intruder.call()
            pair.trust(old, new)
            eventually(lambda: workers_have(2), "both workers trust both authorities", 20)
            pair.move_to(new)
            eventually(lambda: workers_have(2), "both workers have the new certificate", 20)
            pair.trust(new)
            eventually(lambda: workers_have(1), "both workers trust the new authority only", 20)
            assert not any(intruder.call() for _ in range(10))
