"""Requests to real frameworks: the span's name and the metric's label are the route's template, never the path."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from meshlib import Mesh
from meshlib.integrations.starlette import MeshMiddleware
from parts.spans import Spans


def fastapi_app() -> Any:
    app, mounted = FastAPI(), FastAPI()

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @mounted.get("/x/{y}")
    async def inner(y: str) -> str:
        return y

    app.mount("/sub", mounted)
    return app


def starlette_app() -> Any:
    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    of_tenant = Mount("/tenants/{tenant}", routes=[Route("/orders/{order}", hello)])
    return Starlette(routes=[Route("/items/{item}", hello), Mount("/sub", routes=[Route("/x/{y}", hello)]), of_tenant])


@pytest.mark.parametrize("make", [fastapi_app, starlette_app])
async def test_the_route_is_its_template(make: Any) -> None:
    spans, app, mesh = Spans(), make(), Mesh.static({})
    mesh.instrument(tracer_provider=spans.provider, metrics=False)
    collector = mesh.prometheus_collector()
    app.add_middleware(MeshMiddleware, mesh=mesh)
    paths = {"/items/4711": "/items/{item}", "/sub/x/4711": "/sub/x/{y}", "/nowhere/4711": None}
    if make is starlette_app:
        paths["/tenants/4711/orders/4711"] = "/orders/{order}"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        for path in paths:
            await client.get(path)
    found = {span.attributes["url.path"]: span.attributes.get("http.route") for span in spans.of_kind("SERVER")}
    assert found == paths
    labels = {str(sample.labels) for family in collector.collect() for sample in family.samples}
    assert not any("4711" in text for text in labels)
