"""Istio YAML in a directory → our control plane → a real Envoy, which takes every resource and routes by it."""

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib.control.control_plane import ControlPlane
from parts.backend import Backend
from parts.envoy_server import EnvoyServer

ISTIO = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints:
  - {{address: 127.0.0.1, labels: {{version: v1}}, ports: {{http: {v1}}}}}
  - {{address: 127.0.0.1, labels: {{version: v2}}, ports: {{http: {v2}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {{tcp: {{maxConnections: 50}}, http: {{http1MaxPendingRequests: 7, idleTimeout: 1m}}}}
    outlierDetection: {{consecutive5xxErrors: 3, interval: 1m, baseEjectionTime: 90s}}
    retryBudget: {{percent: 25}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - name: v2
    labels: {{version: v2}}
    trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: x-user}}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews, "*.bookinfo.test"]
  http:
  - name: canary
    match:
    - headers: {{x-canary: {{exact: "1"}}}}
      withoutHeaders: {{x-stable: {{}}}}
    route: [{{destination: {{host: reviews, subset: v2}}, headers: {{request: {{set: {{x-was: canary}}}}}}}}]
    retries: {{attempts: 3, retryOn: "5xx,503", perTryTimeout: 1s, backoff: 10ms}}
    timeout: 5s
  - match: [{{uri: {{exact: /moved}}}}]
    redirect: {{uri: /new, redirectCode: 302}}
  - match: [{{uri: {{prefix: /direct}}, queryParams: {{q: {{regex: "[0-9]+"}}}}}}]
    directResponse: {{status: 418, body: {{string: teapot}}}}
  - match: [{{uri: {{prefix: /old/}}, ignoreUriCase: true}}]
    rewrite: {{uri: /fresh/, authority: fresh.test}}
    route: [{{destination: {{host: reviews, subset: v1}}}}]
  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {weight}}}
    - {{destination: {{host: reviews, subset: v2}}, weight: {rest}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: external}}
spec:
  hosts: [localhost.external.test]
  ports: [{{number: {port}, name: http, protocol: HTTP2}}]
  resolution: DNS
  endpoints: [{{address: localhost, ports: {{http: {v1}}}, locality: eu/a/b}}]
"""


def bootstrap(port: int, api_type: str) -> dict[str, Any]:
    ads = {"ads": {}, "resource_api_version": "V3"}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    control = {
        "name": "ads",
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": {
            "cluster_name": "ads",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    services = [{"envoy_grpc": {"cluster_name": "ads"}}]
    config = {"api_type": api_type, "transport_api_version": "V3", "grpc_services": services}
    return {
        "node": {"id": "envoy", "cluster": "tests"},
        "dynamic_resources": {"ads_config": config, "cds_config": ads, "lds_config": ads},
        "static_resources": {"clusters": [control]},
    }


def ask(port: int, path: str, host: str = "reviews", **headers: str) -> tuple[int, dict[str, Any], str]:
    class Stay(urllib.request.HTTPErrorProcessor):
        def http_response(self, request: Any, response: Any) -> Any:
            return response

    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"host": host, **headers})
    with urllib.request.build_opener(Stay).open(request, timeout=10) as answer:
        text = answer.read().decode()
        echo = json.loads(text) if text.startswith("{") else {"text": text}
        return answer.status, echo, answer.headers.get("location", "")


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_envoy_takes_and_follows_translated_istio(
    tmp_path: Path,
    api_type: str,
    free_port: Callable[[], int],
    backend: Callable[[str], Backend],
    envoy: Callable[..., EnvoyServer],
) -> None:
    port, v1, v2 = free_port(), backend("v1"), backend("v2")

    def write(weight: int) -> None:
        text = ISTIO.format(port=port, v1=v1.port, v2=v2.port, weight=weight, rest=100 - weight)
        (tmp_path / ".new").write_text(text)
        (tmp_path / ".new").replace(tmp_path / "istio.yaml")

    write(100)
    with ControlPlane(tmp_path) as plane:
        assert not plane.refused, plane.issues
        proxy = envoy(bootstrap(int(plane.address.rpartition(":")[2]), api_type))
        assert proxy.listener_port(f"0.0.0.0_{port}") == port

        shares = Counter(ask(port, "/")[1]["name"] for _ in range(20))
        assert shares == {"v1": 20}
        _, echo, _ = ask(port, "/", **{"x-canary": "1"})
        assert (echo["name"], dict(echo["headers"])["x-was"]) == ("v2", "canary")
        assert ask(port, "/", **{"x-canary": "1", "x-stable": "1"})[1]["name"] == "v1"
        assert ask(port, "/moved")[::2] == (302, "http://reviews/new")
        assert ask(port, "/direct?q=12")[:2] == (418, {"text": "teapot"})
        _, echo, _ = ask(port, "/OLD/a")
        assert (echo["path"], dict(echo["headers"])["host"]) == ("/fresh/a", "fresh.test")
        assert ask(port, "/", host=f"reviews.default.svc.cluster.local:{port}")[1]["name"] == "v1"

        write(0)
        assert plane.wait_for_version(2)
        proxy.wait_for(lambda: {ask(port, "/")[1]["name"] for _ in range(5)} == {"v2"} or None, "the new weights")
        rejected = {name: count for name, count in proxy.stats("update_rejected").items() if count}
        assert rejected == {}
        assert all(kind.last_nack is None for one in plane.subscribers() for kind in one.types)
