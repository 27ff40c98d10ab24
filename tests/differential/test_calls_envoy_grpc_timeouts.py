"""How long a gRPC request may take by its own `grpc-timeout` and what bounds it: the same in Envoy and meshlib."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from differential.calls_twin import Answer, Call, Twin, cluster, marked, virtual_host
from parts.fast_backend import FastBackend, Reply

SHORT, LONG = 0.3, 1.5
BETWEEN = 0.9
"""What is to take SHORT ends before this, what is to take LONG after it, also on a busy machine."""


def bounded(**limits: str) -> dict[str, Any]:
    return {"timeout": "0.3s", "max_stream_duration": limits}


# The route, `grpc-timeout`, and how long the call may take.
CASES: dict[str, tuple[dict[str, Any], str, float]] = {
    "the caller's own": ({"max_grpc_timeout": "0s"}, "300m", SHORT),
    "at most": ({"max_grpc_timeout": "0.3s"}, "5S", SHORT),
    "at most without any": ({"max_grpc_timeout": "0.3s"}, "", SHORT),
    "longer than the route's": ({"timeout": "0.3s", "max_grpc_timeout": "1.5s"}, "", LONG),
    "less the offset": ({"max_grpc_timeout": "5s", "grpc_timeout_offset": "1.2s"}, "1500m", SHORT),
    "an offset that would leave nothing": ({"max_grpc_timeout": "5s", "grpc_timeout_offset": "2s"}, "1500m", LONG),
    "in place of the duration": (bounded(max_stream_duration="1.5s", grpc_timeout_header_max="0.3s"), "5S", SHORT),
    "the duration": (bounded(max_stream_duration="1.5s", grpc_timeout_header_max="0.3s"), "", LONG),
    "longer than the duration": (bounded(max_stream_duration="0.3s", grpc_timeout_header_max="0s"), "1500m", LONG),
    "as the caller says": (bounded(max_stream_duration="1.5s", grpc_timeout_header_max="0s"), "300m", SHORT),
    "less its offset": (bounded(grpc_timeout_header_max="0s", grpc_timeout_header_offset="1.2s"), "1500m", SHORT),
    "the manager's": (bounded(grpc_timeout_header_max="0.3s"), "", LONG),
    "no bound of the caller's": (bounded(max_stream_duration="1.5s"), "300m", LONG),
}


@pytest.mark.timeout(60)
def test_grpc_timeouts(make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]) -> None:
    backend = fast_backend("up", Reply(fault="hang"))
    names = list(CASES)
    routes = [
        {"match": {"path": f"/{index}"}, "route": {"cluster": "up", **CASES[name][0]}}
        for index, name in enumerate(names)
    ]
    twin = make_twin(
        [virtual_host(routes)],
        [cluster("up", [backend.port])],
        common_http_protocol_options={"max_stream_duration": f"{LONG}s"},
    )

    def took(send: Callable[[Call], Answer], side: str, index: int) -> float:
        timeout = CASES[names[index]][1]
        headers = (("content-type", "application/grpc"), *((("grpc-timeout", timeout),) if timeout else ()))
        began = time.monotonic()
        send(marked(side, Call(f"{index}", f"/{index}", headers, "POST", body=b"")))
        return time.monotonic() - began

    with ThreadPoolExecutor(2 * len(names)) as threads:
        taken = {
            (side, name): threads.submit(took, send, side, index)
            for index, name in enumerate(names)
            for side, send in (("envoy", twin.theirs), ("mesh", twin.ours))
        }
    for (side, name), seconds in taken.items():
        expected = CASES[name][2]
        assert (seconds.result() < BETWEEN) == (expected < BETWEEN), (side, name, seconds.result())
        assert seconds.result() >= expected - 0.1, (side, name, seconds.result())
