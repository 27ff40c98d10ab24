"""Configuration by xDS, live: `python -m examples.xds_client`.

A client follows every edit of what a control plane serves: here ours, in this process (`meshlib control-plane` is the
same as a command). In earnest the bootstrap comes from `GRPC_XDS_BOOTSTRAP`.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from examples.tiny_server import TinyServer
from meshlib import Mesh
from meshlib.control.control_plane import ControlPlane
from meshlib.engine.events import PlanChanged
from meshlib.sources.xds import Bootstrap, XdsServer

CONFIG = """
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: payments
  api_listener:
    api_listener:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: payments
      route_config:
        virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: payments}}]}]
      http_filters:
      - name: router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: payments
  load_assignment:
    cluster_name: payments
    endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT}}}}]}]
"""


def main(folder: Path) -> None:
    old, new = TinyServer("old"), TinyServer("new")
    file = folder / "payments.yaml"
    file.write_text(CONFIG.replace("PORT", str(old.port)), encoding="utf-8")
    with ControlPlane(folder) as plane:
        bootstrap = Bootstrap((XdsServer(plane.address),))
        with Mesh.from_xds(bootstrap, declared=["payments"]) as mesh, mesh.http.client("payments") as client:
            print(f"configured: {client.get('/').text} answers")
            changed = threading.Event()
            mesh.on_event(lambda event: changed.set() if isinstance(event, PlanChanged) else None)
            began = time.perf_counter()
            file.write_text(CONFIG.replace("PORT", str(new.port)), encoding="utf-8")
            changed.wait(10)
            took = (time.perf_counter() - began) * 1000
            print(f"version {plane.version}: {client.get('/').text} answers, {took:.0f} ms after the edit")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
