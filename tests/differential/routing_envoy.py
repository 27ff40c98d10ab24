"""A real Envoy whose route configuration a test replaces as often as it likes, and asks."""

import http.client
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from differential.routing_generate_matches import RUNTIME
from differential.routing_observed import ROUTE_HEADER, Arrived, Ask, Observed, joined
from differential.routing_render import Json
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply, Request

CLUSTERS = ("c0", "c1", "c2")
PROBE_HOST = "version.meshlib.internal"
UPDATE_TIMEOUT = 10.0
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"

# Added by Envoy as a proxy, or by HTTP between the two hops; no matter of routing.
REQUEST_NOISE = frozenset(
    {"host", "x-forwarded-proto", "x-request-id", "x-envoy-expected-rq-timeout-ms", "content-length", "connection"}
)
RESPONSE_NOISE = frozenset(
    {"date", "server", "content-length", "content-type", "x-envoy-upstream-service-time", "connection", "location"}
    | {ROUTE_HEADER, "transfer-encoding", "x-backend"}
)


class RefusedError(Exception):
    """Envoy did not take the configuration; the text is its reason."""


class RoutingEnvoy:
    """`push` a route configuration, then `ask`."""

    def __init__(
        self,
        start: Callable[..., EnvoyServer],
        backend: Callable[..., FastBackend],
        folder: Path,
        filters: Sequence[Json] = (),
    ) -> None:
        backends = {name: backend(name, _echo(name)) for name in CLUSTERS}
        self._file = folder / "routes.json"
        self._version = 0
        self._write([])
        self.ports = {name: server.port for name, server in backends.items()}
        self._envoy = start(_bootstrap(self._file, self.ports, RUNTIME, filters))
        self._connection = http.client.HTTPConnection(self._envoy.host, self._envoy.port, timeout=10)
        self._wait_for_version()

    def push(self, config: Json) -> None:
        """Replace the route configuration and wait until Envoy routes by it; `RefusedError` when it does not."""
        before = self._rejections()
        self._version += 1
        self._write(config["virtual_hosts"], {key: value for key, value in config.items() if key != "virtual_hosts"})
        self._wait_for_version(before)

    def ask(self, ask: Ask) -> Observed:
        """Send a request and tell what became of it."""
        status, headers, body = self._send(ask)
        named = dict(headers)
        echo: dict[str, Any] | None = json.loads(body) if "x-echo" in named else None
        return Observed(
            route=named.get(ROUTE_HEADER, ""),
            status=status,
            location=named.get("location", ""),
            headers=joined(headers, RESPONSE_NOISE),
            arrived=echo and _arrived(echo),
        )

    def close(self) -> None:
        self._connection.close()

    def _send(self, ask: Ask) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = self._connection
        with ExitStack() as undo:
            undo.callback(connection.close)  # whatever goes wrong, the next request starts on a fresh connection
            answer = _exchange(connection, ask)
            undo.pop_all()
        return answer

    def _write(self, hosts: list[Json], rest: Json | None = None) -> None:
        answer = {"status": 200, "body": {"inline_string": str(self._version)}}
        probe = {
            "name": PROBE_HOST,
            "domains": [PROBE_HOST],
            "routes": [{"match": {"prefix": "/"}, "direct_response": answer}],
        }
        resource = {
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            **(rest or {}),
            "name": "generated",
            "virtual_hosts": [probe, *hosts],
        }
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps({"version_info": str(self._version), "resources": [resource]}))
        written.rename(self._file)  # Envoy watches for the move, so it never reads half a file

    def _wait_for_version(self, rejected_before: int | None = None) -> None:
        deadline = time.monotonic() + UPDATE_TIMEOUT
        wanted = str(self._version).encode()
        tries = 0
        while True:
            if self._send(Ask("GET", PROBE_HOST, "/"))[2] == wanted:
                return
            tries += 1
            if rejected_before is not None and tries % 20 == 0 and self._rejections() > rejected_before:
                raise RefusedError(self._reason())
            if time.monotonic() > deadline:
                raise TimeoutError(f"Envoy has not taken version {self._version}: {self._envoy.log()[-2000:]}")
            time.sleep(0.001)

    def _rejections(self) -> int:
        return sum(self._envoy.stats(r"rds\.generated\.update_rejected$").values())

    def _reason(self) -> str:
        rejections = [line for line in self._envoy.log().splitlines() if "rejected" in line or "rror" in line]
        return rejections[-1] if rejections else "no reason in its log"


def _exchange(connection: http.client.HTTPConnection, ask: Ask) -> tuple[int, list[tuple[str, str]], bytes]:
    connection.putrequest(ask.method, ask.path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", ask.authority)
    for name, value in ask.headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    return response.status, [(name.lower(), value) for name, value in response.getheaders()], body


def _echo(cluster: str) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        seen = {"cluster": cluster, "target": request.target, "headers": request.headers}
        headers = (("x-echo", "1"), ("x-resp-a", "upstream"), ("content-type", "application/json"))
        return Reply(200, json.dumps(seen).encode(), headers)

    return reply


def _arrived(echo: dict[str, Any]) -> Arrived:
    pairs = [(name, value) for name, value in echo["headers"]]
    host = next((value for name, value in pairs if name == "host"), "")
    return Arrived(echo["cluster"], echo["target"], host, joined(pairs, REQUEST_NOISE))


def _bootstrap(routes: Path, ports: dict[str, int], runtime: Json, before: Sequence[Json] = ()) -> Json:
    source = {"path_config_source": {"path": str(routes)}, "resource_api_version": "V3"}
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "rds": {"route_config_name": "generated", "config_source": source},
        "generate_request_id": False,
        "http_filters": [
            *before,
            {
                "name": "router",
                "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"},
            },
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "node": {"id": "routing", "cluster": "routing"},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": runtime}]},
        "static_resources": {
            "listeners": [{"name": "in", "address": address, "filter_chains": [{"filters": filters}]}],
            "clusters": [_cluster(name, port) for name, port in ports.items()],
        },
    }


def _cluster(name: str, port: int) -> Json:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "hostname": f"{name}.host"}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
