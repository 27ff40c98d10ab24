"""What an upstream is told of the call: attempt count, timeout, what was rewritten; and that it can be suppressed."""

from collections.abc import Callable
from typing import Any

import pytest

from differential.calls_twin import EXTENSIONS, Call, Twin, virtual_host
from differential.test_calls_envoy_routes import echo, named_cluster
from parts.fast_backend import FastBackend, Request

ROUTES: list[dict[str, Any]] = [
    {"match": {"path": "/plain"}, "route": {"cluster": "up", "timeout": "0s"}},
    {"match": {"path": "/timeout"}, "route": {"cluster": "up", "timeout": "7s"}},
    {
        "match": {"path": "/per-try"},
        "route": {"cluster": "up", "timeout": "7s", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "2s"}},
    },
    {
        "match": {"path": "/per-try-only"},
        "route": {"cluster": "up", "timeout": "0s", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "2s"}},
    },
    {"match": {"path": "/prefix"}, "route": {"cluster": "up", "prefix_rewrite": "/new"}},
    {
        "match": {"path": "/host"},
        "route": {"cluster": "up", "host_rewrite_literal": "new.test", "append_x_forwarded_host": True},
    },
    {"match": {"path": "/auto"}, "route": {"cluster": "up", "auto_host_rewrite": True}},
]
TOLD = (
    *("host", "x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms", "x-envoy-original-path"),
    *("x-envoy-original-host", "x-forwarded-host"),
)


def told(requests: list[Request]) -> dict[str, dict[str, str]]:
    """By the path called: the headers of interest as they arrived."""
    return {
        request.header("x-asked") or "": {name: value for name, value in request.headers if name in TOLD}
        for request in requests
    }


@pytest.mark.parametrize("suppress", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_the_meshs_own_headers(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend], suppress: bool, counted: bool
) -> None:
    backend = fast_backend("up", echo("up"))
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router", "suppress_envoy_headers": suppress},
    }
    host = virtual_host(ROUTES, include_request_attempt_count=counted)
    twin = make_twin([host], [named_cluster("up", backend.port)], router=router)
    calls = [
        Call(entry["match"]["path"], entry["match"]["path"], (("x-asked", entry["match"]["path"]),)) for entry in ROUTES
    ]
    for call in calls:
        twin.theirs(call)
    theirs = told(backend.requests)
    backend.requests.clear()
    for call in calls:
        twin.ours(call)
    ours = told(backend.requests)
    explained = {
        call.path: {
            name: value
            for name, value in twin.explainer.explain(
                call.method, f"http://{call.authority}{call.path}", call.sent
            ).headers
            if name in TOLD
        }
        for call in calls
    }
    assert ours == theirs
    assert explained == theirs
    assert suppress != any("x-envoy-expected-rq-timeout-ms" in headers for headers in theirs.values())
