"""A real Prometheus scrapes a meshed program, and answers the queries of a dashboard made for Envoy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.ports import free_port
from parts.process import Process
from parts.registry import path_of
from parts.web import fetch
from parts.xds import eventually

APP = """
import sys, threading
from prometheus_client import REGISTRY, start_http_server
from meshlib import Mesh

mesh = Mesh.static({"payments": sys.argv[1:]}, retries=2).start()
REGISTRY.register(mesh.prometheus_collector())
server, _ = start_http_server(0, "127.0.0.1")
with mesh.http.client("payments") as client:
    for _ in range(20):
        client.get("/charge")
print(f"port {server.server_address[1]}", flush=True)
threading.Event().wait()
"""


class Prometheus:
    """A Prometheus with one target."""

    def __init__(self, servers: Servers, target: str) -> None:
        folder, self._port = servers.folder("prometheus"), free_port()
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "200ms"},
            "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        argv = [
            path_of("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._process = servers.keep(Process(argv, folder / "log"))
        self._process.wait_line("Server is ready")

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """The values of an instant query, by their label values in the order of the labels' names."""
        answer = json.loads(fetch(f"http://127.0.0.1:{self._port}/api/v1/query?query={quote(expression)}"))
        assert answer["status"] == "success", answer
        found: dict[tuple[str, ...], float] = {}
        for series in answer["data"]["result"]:
            labels = {key: value for key, value in series["metric"].items() if key not in {"instance", "job"}}
            found[tuple(labels[key] for key in sorted(labels) if key != "__name__")] = float(series["value"][1])
        return found


@pytest.mark.needs("prometheus")
def test_prometheus_scrapes_a_mesh(servers: Servers, fast_backend: Callable[..., FastBackend]) -> None:
    good, bad = fast_backend("good"), fast_backend("bad")
    bad.behave(status=503)
    folder = servers.folder("app")
    (folder / "app.py").write_text(APP)
    root = str(Path(__file__).resolve().parents[3])
    argv = [sys.executable, str(folder / "app.py"), good.address, bad.address]
    app = servers.keep(Process(argv, folder / "log", env={"PYTHONPATH": root}))
    port = app.wait_line(r"^port (\d+)$")[1]
    prometheus = Prometheus(servers, f"127.0.0.1:{port}")

    def scraped() -> Any:
        return prometheus.query("envoy_cluster_upstream_rq_total")

    total = eventually(scraped, "a scrape")
    sent = good.count + bad.count
    assert total == {("payments",): float(sent)}
    classes = prometheus.query("sum by (envoy_response_code_class) (envoy_cluster_upstream_rq_xx) > 0")
    assert classes == {("2",): float(good.count), ("5",): float(bad.count)}
    assert prometheus.query("envoy_cluster_upstream_rq_retry") == {("payments",): float(bad.count)}
    assert prometheus.query("envoy_cluster_membership_healthy") == {("payments",): 2.0}
    calls = prometheus.query("sum by (http_response_status_code) (http_client_request_duration_seconds_count)")
    assert calls == {("200",): 20.0}
    slow = "histogram_quantile(0.99, sum by (le) (envoy_cluster_upstream_rq_time_bucket))"
    ((_, milliseconds),) = prometheus.query(slow).items()
    assert 0 < milliseconds < 10_000
    assert prometheus.query("up") == {(): 1.0}
