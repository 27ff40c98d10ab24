"""Spans of what a route does beside sending: a copy is a call of its own in the trace, a redirect one more attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from e2e.http_client.doors import Door
from meshlib import Mesh
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.route import Route, RouteAction
from parts.fast_backend import FastBackend, Reply, Request
from parts.spans import Spans, header, id_of, parent_of


def test_copies_and_redirects_in_a_trace(
    door: Door, static: Callable[..., Mesh], fast_backend: Callable[..., FastBackend]
) -> None:
    def answer(request: Request) -> Reply:
        return Reply(302, headers=(("location", "http://up/to"),)) if request.target == "/from" else Reply()

    up, shadow = fast_backend("up", answer), fast_backend("shadow")
    policies = (
        RequestMirrorPolicy("shadow"),
        RequestMirrorPolicy("shadow", host_rewrite_literal="plain", traced=False),
    )
    routes = [
        Route(
            RouteMatch(PathMatcher("prefix", "/from")),
            RouteAction("up", request_mirror_policies=policies, internal_redirect=InternalRedirectPolicy()),
        ),
        Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up")),
    ]
    mesh = static({"up": [up.address], "shadow": [shadow.address]}, routes={"up": routes})
    spans = Spans()
    mesh.instrument(tracer_provider=spans.provider)
    caller = door.client(mesh, "up")
    with spans.provider.get_tracer("test").start_as_current_span("outer") as outer:
        assert caller.get("/from").status_code == 200
    limit = time.monotonic() + 10
    while (mesh.mirrors.under_way or shadow.count < 2) and time.monotonic() < limit:
        caller.settle()
        time.sleep(0.001)
    inner: list[Any] = [span for span in spans.of_kind("INTERNAL") if span.name != "outer"]
    calls = {span.attributes["meshlib.cluster"]: span for span in inner}
    attempts = spans.of_kind("CLIENT")
    assert set(calls) == {"up", "shadow"}
    assert {parent_of(span) for span in calls.values()} == {outer.get_span_context().span_id}
    of_call = [span for span in attempts if parent_of(span) == id_of(calls["up"])]
    (of_copy,) = [span for span in attempts if parent_of(span) == id_of(calls["shadow"])]
    assert len(of_call) == 2, "before the redirect and after it"
    assert [request.header("traceparent") for request in up.requests] == [header(span) for span in of_call]
    traced = {request.header("host"): request.header("traceparent") for request in shadow.requests}
    assert traced["up-shadow"] == header(of_copy)
    assert traced["plain"] not in {header(span) for span in attempts}
