"""A bulkhead under uvicorn: whatever becomes of requests and of their callers, the places come back."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from parts.process import Process

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = ["uvicorn", "--port", "0", "--no-access-log", "e2e.shedding.ends_app:app"]
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", *command]
    process = Process(argv, tmp_path_factory.mktemp("ends") / "uvicorn.log", environment)
    try:
        yield process.wait_line(r"running on (http://127.0.0.1:\d+)")[1]
    finally:
        process.stop()


def active(url: str) -> int:
    return int(httpx.get(f"{url}/healthz").json()["rq_active"])


def until(url: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := active(url)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@pytest.mark.parametrize(("path", "status"), [("/fine", 200), ("/fails", 500), ("/breaks", 200), ("/nothing", 404)])
def test_a_request_that_ends_gives_its_place_back(url: str, path: str, status: int) -> None:
    for _ in range(5):
        with contextlib.suppress(httpx.RemoteProtocolError), httpx.stream("GET", url + path) as response:
            assert response.status_code == status
            response.read()
    until(url, 0)


@pytest.mark.parametrize("path", ["/stream", "/waits"])
def test_a_caller_that_leaves_gives_its_place_back(url: str, path: str) -> None:
    for _ in range(3):
        bodies: list[Iterator[bytes]] = []
        with contextlib.ExitStack() as stack:
            clients: list[Any] = [stack.enter_context(httpx.Client(timeout=0.3)) for _ in range(2)]
            for client in clients:
                if path == "/stream":
                    response = stack.enter_context(client.stream("GET", url + path))
                    bodies.append(response.iter_raw())  # which closes the response when it is dropped
                    next(bodies[-1])
                else:
                    with pytest.raises(httpx.ReadTimeout):
                        client.get(url + path)
            if path == "/stream":
                assert active(url) == 2
                assert httpx.get(f"{url}/fine").status_code == 503
        until(url, 0)
    assert httpx.get(f"{url}/fine").text == "fine"
