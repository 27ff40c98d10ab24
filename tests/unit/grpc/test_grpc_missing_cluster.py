"""A gRPC call whose cluster does not exist ends with what the route's status is in gRPC's words, as Envoy says it."""

from __future__ import annotations

import grpc
import pytest

from meshlib.engine.commands import Fail
from meshlib.grpc.errors import exception_for
from meshlib.grpc.metadata import GrpcHead
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from parts.flow import Player, runtime_of

HEADERS = [(b"content-type", b"application/grpc")]


@pytest.mark.parametrize(
    "status, code",
    [(503, grpc.StatusCode.UNAVAILABLE), (404, grpc.StatusCode.UNIMPLEMENTED), (500, grpc.StatusCode.UNKNOWN)],
)
def test_the_status_of_a_missing_cluster(status: int, code: grpc.StatusCode) -> None:
    action = RouteAction("gone", cluster_not_found_response_code=status)
    route = Route(RouteMatch(PathMatcher("prefix", "/")), action)
    config = RouteConfiguration("routes", (VirtualHost("h", ("*",), (route,)),))
    head = GrpcHead("POST", "http", "payments", "/echo.Echo/Say", HEADERS)
    fail = Player(runtime_of(Snapshot(routes={"routes": config})), head).last
    assert isinstance(fail, Fail)
    error = exception_for(fail, "grpc")
    assert (error.code(), error.flag, error.status) == (code, "NC", status)
