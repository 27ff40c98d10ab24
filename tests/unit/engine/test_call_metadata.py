"""What the context of a call carries, for routes that match by it."""

import pytest

from examples.tiny_server import TinyServer
from meshlib import Mesh, call_metadata
from meshlib.context import current
from meshlib.model.context_matchers import FilterStateMatcher, MetadataMatcher
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.metadata import Metadata
from meshlib.model.route import Route, RouteAction
from meshlib.model.strings import StringMatcher

ALL = PathMatcher("prefix", "/")
GOLD = MetadataMatcher("shop", ("customer", "tier"), StringMatcher("exact", "gold"))
NEAR = FilterStateMatcher("zone", StringMatcher("prefix", "eu-"))
ROUTES = [
    Route(RouteMatch(ALL, dynamic_metadata=(GOLD,)), RouteAction("gold")),
    Route(RouteMatch(ALL, filter_state=(NEAR,)), RouteAction("near")),
    Route(RouteMatch(ALL), RouteAction("all")),
]


@pytest.fixture
def mesh() -> Mesh:
    servers = {name: [TinyServer(name).address] for name in ("gold", "near", "all")}
    return Mesh.static(servers, routes={"payments": ROUTES})


def test_calls_are_routed_by_what_their_context_carries(mesh: Mesh) -> None:
    def answer() -> str:
        return str(client.get("/").text)

    with mesh, mesh.http.client("payments") as client:
        assert answer() == "all"
        with call_metadata({"shop": {"customer": {"tier": "gold"}}}):
            assert answer() == "gold"
            with call_metadata({"shop": {"customer": {"tier": "silver"}}}, {"zone": "eu-1"}):
                assert answer() == "near"
            assert answer() == "gold"
        with call_metadata(filter_state={"zone": "us-1"}):
            assert answer() == "all"
        assert answer() == "all"


def test_guarded_functions_too(mesh: Mesh) -> None:
    from meshlib.decorators.attempt import current_attempt

    @mesh.guard("payments")
    def cluster() -> str:
        return current_attempt().cluster

    with mesh:
        assert cluster() == "all"
        with call_metadata(filter_state={"zone": "eu-2"}):
            assert cluster() == "near"


def test_inner_metadata_takes_the_place_of_outer_and_is_given_back() -> None:
    before = current.get()
    with call_metadata({"a": {"x": 1}, "b": {"y": [1, "t", None]}}, {"k": "1"}):
        with call_metadata({"a": {"z": True}}, {"l": "2"}):
            assert current.get().metadata == Metadata.of({"a": {"z": True}, "b": {"y": [1, "t", None]}})
            assert dict(current.get().filter_state) == {"k": "1", "l": "2"}
        assert current.get().metadata.namespace("a").get("x") == 1.0
    assert current.get() is before
    with pytest.raises(TypeError), call_metadata({"a": {"x": object()}}):
        pass
