"""CORS at the server's end, in both middlewares: preflights are answered, responses marked, by code or by routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.http import server, wsgi
from meshlib.model.cors import CorsPolicy
from meshlib.model.matchers import FractionalPercent, StringMatcher

POLICY = CorsPolicy(
    allow_origins=(StringMatcher("exact", "https://shop.test"),),
    allow_methods="GET,PUT",
    allow_headers="x-user",
    expose_headers="x-request-id",
    max_age="600",
    allow_credentials=True,
)
ROUTES = """
"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: shop
virtual_hosts:
- name: payments
  domains: [payments]
  typed_per_filter_config:
    envoy.filters.http.cors:
      "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
      allow_origin_string_match: [{exact: "https://shop.test"}]
      allow_methods: GET,PUT
      allow_headers: x-user
      expose_headers: x-request-id
      max_age: "600"
      allow_credentials: true
  routes:
  - match: {prefix: /open}
    non_forwarding_action: {}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{safe_regex: {regex: ".*"}}]
        allow_methods: "*"
        allow_credentials: false
  - match: {prefix: /}
    non_forwarding_action: {}
"""
TOLD = {
    "access-control-allow-origin": "https://shop.test",
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "x-request-id",
}
PREFLIGHT = {
    **TOLD,
    "access-control-allow-methods": "GET,PUT",
    "access-control-allow-headers": "x-user",
    "access-control-max-age": "600",
}


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"x-app", b"1"), (b"access-control-allow-origin", b"*")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("x-app", "1"), ("Access-Control-Allow-Origin", "*")])
    return [b"ok"]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    with Mesh.from_file(tmp_path / "routes.yaml") as mesh:
        mesh.wait_ready()
        yield mesh


async def asked(mesh: Mesh, cors: CorsPolicy | bool, method: str, path: str, **headers: str) -> httpx.Response:
    """The answer of an ASGI application, which a WSGI application must give as well."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(server.MeshMiddleware(asgi_app, mesh=mesh, cors=cors))
    async with httpx.AsyncClient(transport=transport, base_url="http://payments") as client:
        first = await client.request(method, path, headers=named)
    blocking = httpx.WSGITransport(wsgi.MeshMiddleware(wsgi_app, mesh=mesh, cors=cors))
    with httpx.Client(transport=blocking, base_url="http://payments") as client:
        second = client.request(method, path, headers=named)
    assert (first.status_code, first.content, told(first)) == (second.status_code, second.content, told(second))
    return first


def told(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.multi_items() if name.startswith("access-control-")}


@pytest.mark.parametrize("cors", [POLICY, True])
async def test_preflights_are_answered_and_responses_marked(mesh: Mesh, cors: CorsPolicy | bool) -> None:
    origin = {"origin": "https://shop.test"}
    preflight = await asked(mesh, cors, "OPTIONS", "/", access_control_request_method="PUT", **origin)
    assert (preflight.status_code, preflight.content, told(preflight)) == (200, b"", PREFLIGHT)
    assert "x-app" not in preflight.headers
    response = await asked(mesh, cors, "GET", "/", **origin)
    assert (response.content, response.headers["x-app"], told(response)) == (b"ok", "1", TOLD)


@pytest.mark.parametrize("cors", [POLICY, True])
async def test_what_is_not_cross_origin_or_not_allowed_is_the_applications(mesh: Mesh, cors: CorsPolicy | bool) -> None:
    for headers in ({}, {"origin": "https://other.test"}, {"origin": ""}):
        response = await asked(mesh, cors, "OPTIONS", "/", access_control_request_method="PUT", **headers)
        assert told(response) == {"access-control-allow-origin": "*"}


async def test_a_route_says_otherwise_than_its_virtual_host(mesh: Mesh) -> None:
    response = await asked(mesh, True, "OPTIONS", "/open", access_control_request_method="PATCH", origin="https://any")
    assert told(response) == {
        "access-control-allow-origin": "https://any",
        "access-control-allow-methods": "PATCH",
        "access-control-allow-headers": "x-user",
        "access-control-expose-headers": "x-request-id",
        "access-control-max-age": "600",
    }


async def test_without_a_policy_nothing_is_done(mesh: Mesh) -> None:
    for cors in (False, CorsPolicy(POLICY.allow_origins, filter_enabled=FractionalPercent(0))):
        response = await asked(mesh, cors, "GET", "/", origin="https://shop.test")
        assert told(response) == {"access-control-allow-origin": "*"}
