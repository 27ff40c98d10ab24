"""What a request brings along reaches the second service with every call made while it is served, and no other."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets

from e2e.asgi.shop import Shop
from parts.fast_backend import FastBackend
from parts.xds import eventually

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
EXPECTED = "x-envoy-expected-rq-timeout-ms"


@pytest.fixture(params=["fastapi", "starlette"])
def any_shop(request: pytest.FixtureRequest, shop: Callable[..., Shop]) -> Shop:
    return shop(framework=request.param)


def echoed(text: str) -> dict[str, str]:
    """The headers the second service got."""
    return dict(json.loads(text)["headers"])


def get(shop: Shop, path: str = "/call", **headers: str) -> httpx.Response:
    return httpx.get(f"{shop.url}{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_trace_and_request_id_reach_every_kind_of_call(any_shop: Shop, stock: FastBackend) -> None:
    brought = {"traceparent": TRACE, "tracestate": STATE, "x-request-id": "order-7"}
    for path in ("/call", "/thread", "/stream"):
        response = get(any_shop, path, **brought)
        assert response.status_code == 200
        assert response.headers["x-request-id"] == "order-7"
        for line in response.text.splitlines():
            assert brought.items() <= echoed(line).items(), path
    assert get(any_shop, "/background", **brought).json() == {}
    eventually(lambda: any(request.target == "/background" for request in stock.requests), "the background call")
    assert brought.items() <= dict(stock.requests[-1].headers).items()


async def test_trace_and_request_id_over_a_websocket(any_shop: Shop) -> None:
    brought = {"traceparent": TRACE, "tracestate": STATE, "x-request-id": "order-7"}
    url = any_shop.url.replace("http", "ws")
    async with websockets.connect(f"{url}/socket", additional_headers=brought) as connection:
        for _ in range(3):
            await connection.send("call")
            assert brought.items() <= echoed(str(await connection.recv())).items()


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        TRACE.upper(),
        TRACE.replace("00-", "ff-", 1),
        f"{TRACE}-more",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
    ],
)
def test_a_malformed_trace_goes_no_further_and_neither_does_its_state(shop: Any, traceparent: str) -> None:
    one = shop()
    got = echoed(get(one, traceparent=traceparent, tracestate=STATE).text)
    assert "traceparent" not in got
    assert "tracestate" not in got


def test_request_ids_are_made_where_none_came(shop: Any) -> None:
    one = shop()
    responses = [get(one) for _ in range(3)]
    made = [response.headers["x-request-id"] for response in responses]
    assert len(set(made)) == 3
    assert all(UUID.fullmatch(request_id) for request_id in made)
    assert [echoed(response.text)["x-request-id"] for response in responses] == made
    spaced = get(one, x_request_id="two words").headers["x-request-id"]
    assert UUID.fullmatch(spaced)


def test_a_deadline_shrinks_on_its_way(shop: Any, stock: FastBackend) -> None:
    one = shop()
    assert 8000 < int(echoed(get(one).text)[EXPECTED]) <= 9000  # the route's own timeout
    arrived = int(echoed(get(one, "/call?wait=0.3", x_envoy_expected_rq_timeout_ms="2000").text)[EXPECTED])
    assert 500 < arrived < 1700
    late = get(one, "/call?wait=0.3", x_envoy_expected_rq_timeout_ms="200")
    assert (late.status_code, late.json()) == (504, {"flag": "UT"})
    assert stock.count == 2, "a call was made for a caller that had given up"


def test_dead_on_arrival(shop: Any, stock: FastBackend) -> None:
    response = get(shop(), x_envoy_expected_rq_timeout_ms="0", x_request_id="dead-1")
    assert response.status_code == 504
    assert response.headers["x-request-id"] == "dead-1"
    assert stock.count == 0


def test_a_local_limit_answers_before_the_application(shop: Any, stock: FastBackend) -> None:
    one = shop(limit=3, readiness_path="/ready")
    assert [get(one).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = get(one, x_request_id="too-many")
    assert (refused.status_code, refused.text) == (429, "local_rate_limited")
    assert refused.headers["x-request-id"] == "too-many"
    assert get(one, "/ready").status_code == 200
    assert stock.count == 3


async def test_requests_at_once_never_see_each_others_context(shop: Any) -> None:
    one = shop()

    async def ask(client: httpx.AsyncClient, index: int) -> None:
        trace = f"00-{index + 1:032x}-{index + 1:016x}-01"
        headers = {"traceparent": trace, "x-request-id": f"id-{index}", EXPECTED: str(3000 + 10 * index)}
        response = await client.get(f"{one.url}/call?wait={(index % 7) / 100}", headers=headers)
        got = echoed(response.text)
        assert (got["traceparent"], got["x-request-id"]) == (trace, f"id-{index}")
        assert response.headers["x-request-id"] == f"id-{index}"
        assert int(got[EXPECTED]) <= 3000 + 10 * index
        if index % 5 == 0:  # on a connection that has just carried the context of another
            bare = echoed((await client.get(f"{one.url}/call")).text)
            assert "traceparent" not in bare
            assert int(bare[EXPECTED]) > 8000

    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=20)) as client:
        await asyncio.gather(*(ask(client, index) for index in range(200)))


HOSTILE = {
    "huge": [("x-request-id", b"a" * 30_000), ("tracestate", b"k=" + b"v" * 30_000)],
    "not ascii": [("traceparent", b"\xff\xfe00-\xc3\xa9"), ("tracestate", b"\x80"), ("x-request-id", b"\xe2\x98\x83")],
    "many": [(f"x-{index}", b"1") for index in range(90)],
    "repeated": [("traceparent", TRACE.encode())] * 5 + [("x-request-id", b"a")] * 5 + [(EXPECTED, b"5000")] * 5,
    "numbers": [(EXPECTED, b"9" * 60), ("grpc-timeout", b"99999999999S")],
    "signs": [(EXPECTED, b"-1"), ("grpc-timeout", b"+1S")],
    "other digits": [(EXPECTED, "٣".encode()), ("grpc-timeout", "١S".encode())],
    "fractions": [(EXPECTED, b"1e3"), ("grpc-timeout", b"0.5S")],
    "empty": [("traceparent", b""), ("tracestate", b""), ("x-request-id", b""), (EXPECTED, b""), ("grpc-timeout", b"")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers_are_ignored_and_go_no_further(shop: Any, stock: FastBackend, kind: str) -> None:
    one = shop()
    head = b"GET /call HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n"
    head += b"".join(name.encode() + b": " + value + b"\r\n" for name, value in HOSTILE[kind])
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as connection:
        connection.sendall(head + b"\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    got = dict(stock.requests[-1].headers)
    assert "traceparent" not in got
    assert "tracestate" not in got
    assert len(got["x-request-id"]) <= 128
    assert got["x-request-id"].isascii()
    assert int(got[EXPECTED]) > 4000
    assert "Traceback" not in one.process.log()
