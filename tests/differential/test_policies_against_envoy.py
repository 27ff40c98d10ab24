"""The policies beside a running Envoy: what it retries, whom it ejects, how it fills its bucket."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from meshlib.model.cluster import OutlierDetection
from meshlib.model.filters import TokenBucket
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.route import RetryPolicy
from meshlib.policy.classify import classify
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.rate_limit import LocalTokenBucket
from meshlib.policy.retry import compile_retry
from meshlib.state.cells import ClusterState
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply, Request

pytestmark = pytest.mark.needs("envoy")

EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"},
}
PER_TRY_TIMEOUT = "0.1s"

RETRY_ON = [
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream"),
    *("retriable-4xx", "envoy-ratelimited", "retriable-status-codes", "5xx,envoy-ratelimited"),
    *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable", "no-such-word"),
]
CODES = (404, 503)
REPLIES: dict[str, tuple[Reply, Outcome]] = {
    **{str(status): (Reply(status), Outcome(status)) for status in (200, 404, 409, 429, 500, 501, 502, 503, 504, 599)},
    **{
        f"grpc-{code}": (
            Reply(200, headers=(("grpc-status", str(code)),)),
            Outcome(200, [(b"grpc-status", b"%d" % code)]),
        )
        for code in (0, 1, 2, 4, 8, 13, 14)
    },
    **{
        f"{name}-{status}": (
            Reply(status, headers=((f"x-envoy-{name}", "true"),)),
            Outcome(status, [(f"x-envoy-{name}".encode(), b"true")]),
        )
        for name in ("overloaded", "ratelimited")
        for status in (200, 429, 503)
    },
    "reset": (Reply(fault="reset"), Outcome(failure=Failure.RESET)),
    "close": (Reply(fault="close"), Outcome(failure=Failure.RESET)),
    "hang": (Reply(fault="hang"), Outcome(failure=Failure.PER_TRY_TIMEOUT)),
    "refused": (Reply(), Outcome(failure=Failure.CONNECT)),
}


def cluster(name: str, ports: list[int], **more: Any) -> dict[str, Any]:
    addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **more}


def bootstrap(routes: list[dict[str, Any]], clusters: list[dict[str, Any]], *filters: dict[str, Any]) -> dict[str, Any]:
    host = {"name": "all", "domains": ["*"], "routes": routes, "include_attempt_count_in_response": True}
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {"name": "routes", "virtual_hosts": [host]},
        "http_filters": [*filters, ROUTER],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    chains = [{"filters": [{"name": "http", "typed_config": manager}]}]
    listener = {"name": "test", "address": address, "filter_chains": chains}
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def ask(envoy: EnvoyServer, port: int, path: str = "/") -> tuple[int, int]:
    """(Status, attempts)."""
    try:
        response = urllib.request.urlopen(f"http://{envoy.host}:{port}{path}", timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        return response.status, int(response.headers.get("x-envoy-attempt-count", "0"))


def reply_by_path(request: Request) -> Reply:
    return REPLIES[request.target.split("/")[2]][0]


def retry_route(number: int, retry_on: str, name: str) -> dict[str, Any]:
    policy = {
        "retry_on": retry_on,
        "num_retries": 1,
        "retriable_status_codes": CODES,
        "per_try_timeout": PER_TRY_TIMEOUT,
        "retry_back_off": {"base_interval": "0.001s"},
    }
    action = {"cluster": "refused" if name == "refused" else "up", "timeout": "20s", "retry_policy": policy}
    return {"match": {"prefix": f"/{number}/{name}/"}, "route": action}


def test_what_is_retried(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], free_port: Callable[[], int]
) -> None:
    backend = fast_backend("up", reply_by_path)
    cases = [(number, words, name) for number, words in enumerate(RETRY_ON) for name in REPLIES]
    clusters = [cluster("up", [backend.port]), cluster("refused", [free_port()])]
    server = envoy(bootstrap([retry_route(*case) for case in cases], clusters))
    port = server.port
    differences = []
    for number, words, name in cases:
        rules = compile_retry(RetryPolicy((words,), retriable_status_codes=CODES))
        assert rules is not None
        outcome = REPLIES[name][1]
        ours = 2 if rules.reason(outcome, classify(outcome)) else 1
        _, theirs = ask(server, port, f"/{number}/{name}/")
        if ours != theirs:
            differences.append(f"retry_on {words!r}, upstream {name}: Envoy made {theirs} attempts, we {ours}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize(
    "hosts,percent,always_one",
    [(5, 10, False), (5, 10, True), (5, 20, False), (4, 50, False), (3, 33, False), (3, 34, False), (2, 100, True)],
)
def test_how_many_are_ejected(
    envoy: Callable[..., EnvoyServer],
    fast_backend: Callable[..., FastBackend],
    hosts: int,
    percent: int,
    always_one: bool,
) -> None:
    ports = [fast_backend(f"b{number}", Reply(500)).port for number in range(hosts)]
    detection = {"consecutive_5xx": 2, "max_ejection_percent": percent, "always_eject_one_host": always_one}
    failing = cluster(
        "failing", ports, outlier_detection=detection, common_lb_config={"healthy_panic_threshold": {"value": 0}}
    )
    server = envoy(bootstrap([{"match": {"prefix": "/"}, "route": {"cluster": "failing"}}], [failing]))
    port = server.port
    for _ in range(8 * hosts):
        ask(server, port)
    theirs = server.stats("outlier_detection.ejections_active")

    state = ClusterState("failing")
    detector = OutlierDetector(OutlierDetection(2, max_ejection_percent=percent, always_eject_one_host=always_one))
    error = classify(Outcome(500))
    for _ in range(2):
        for number in range(hosts):
            detector.record(state, state.endpoint(str(number)), error, 0.0, hosts, NoDraw())
    assert list(theirs.values()) == [len(state.ejected)]


class NoDraw:
    def random(self) -> float:
        raise AssertionError("enforced for all: nothing to draw")


def test_how_the_bucket_fills(envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend]) -> None:
    everything = {"default_value": {"numerator": 100}}
    limit = {
        "@type": f"{EXTENSIONS}.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "test",
        "token_bucket": {"max_tokens": 5, "tokens_per_fill": 5, "fill_interval": "2s"},
        "filter_enabled": everything,
        "filter_enforced": everything,
    }
    backend = fast_backend("up")
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]
    filters = {"name": "envoy.filters.http.local_ratelimit", "typed_config": limit}
    server = envoy(bootstrap(routes, [cluster("up", [backend.port])], filters))
    port = server.port
    bucket = LocalTokenBucket(TokenBucket(5, 5, 2.0))
    theirs, ours, ended = 0, 0, time.monotonic() + 1.7
    while (now := time.monotonic()) < ended:
        theirs += ask(server, port)[0] == 200
        ours += bucket.take(now)
        time.sleep(0.01)
    # A fill in steps would have given five: the next step is at two seconds.
    assert ours == 9
    assert abs(theirs - ours) <= 1
