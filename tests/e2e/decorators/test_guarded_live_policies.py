"""A guarded function's timeout, limit and circuit breaker change at the control plane, and hold for the next call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.decorators.kinds import KINDS, Script
from meshlib import CallError, CircuitBreaker, Mesh
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.sources.xds.types import CLUSTER, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.xds import eventually

Json = dict[str, Any]
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
ROUTER = {"name": "router", "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"}}
ALL = {"default_value": {"numerator": 100}}


def limit(tokens: int) -> Json:
    """So many calls, and none after them; each change of the number is a bucket of its own."""
    bucket = {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "3600s"}
    config = {"stat_prefix": "quota", "token_bucket": bucket, "filter_enabled": ALL, "filter_enforced": ALL}
    return {"name": "limit", "typed_config": {"@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit", **config}}


class Plane:
    """A control plane and a mesh that follows it."""

    def __init__(self, **options: Any) -> None:
        self._store = ResourceStore()
        self.say()
        self._server = AdsServer(self._store).start()
        address = f"127.0.0.1:{self._server.port}"
        self.mesh = Mesh.from_xds(address, unknown_hosts="reject", **options)

    def say(self, *, filters: tuple[Json, ...] = (), cluster: Json | None = None, **action: Any) -> None:
        """Serve a route and its cluster with these policies."""
        listener = xds.api_listener("payments", http_filters=[*filters, ROUTER])
        table = xds.route_configuration("routes", xds.route(route={"cluster": "payments", **action}))
        served = [(LISTENER, listener), (ROUTE_CONFIGURATION, table)]
        served.append((CLUSTER, {"name": "payments", "type": "STATIC", **(cluster or {})}))
        self._store.replace([Resource.of_message(xds.message(*item)) for item in served])

    def close(self) -> None:
        self.mesh.close()
        self._server.stop()


@pytest.fixture
def plane_of() -> Iterator[Callable[..., Plane]]:
    made: list[Plane] = []

    def make(**options: Any) -> Plane:
        made.append(Plane(**options))
        return made[-1]

    yield make
    for plane in made:
        plane.close()


def ended(script: Script) -> str:
    """Its result, or the mesh's flag."""
    try:
        return str(script())
    except CallError as error:
        return error.flag


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout(kind: str, plane_of: Callable[..., Plane]) -> None:
    """What a call has left is told to the function."""
    plane = plane_of()

    def given() -> float:
        script = Script(kind, plane.mesh, "done")
        assert script() == "done"
        (attempt,) = script.attempts
        assert attempt is not None
        return attempt.remaining() or 0.0

    for seconds in (600, 60, 6000):
        plane.say(timeout=f"{seconds}s")
        eventually(lambda wanted=seconds: wanted / 2 < given() <= wanted, f"a timeout of {seconds} s")


def test_a_timeout_that_ends_a_coroutine(plane_of: Callable[..., Plane]) -> None:
    plane = plane_of()
    plane.say(timeout="0.02s")
    eventually(lambda: ended(Script("async", plane.mesh, 0.3)) == "UT", "calls are cut off")
    plane.say(timeout="60s")
    eventually(lambda: ended(Script("async", plane.mesh, 0.1)) == "late", "and then they are not")


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit(kind: str, plane_of: Callable[..., Plane]) -> None:
    plane = plane_of()
    script = Script(kind, plane.mesh, "done")
    assert ended(script) == "done"
    plane.say(filters=(limit(1),))
    eventually(lambda: ended(script) == "RL", "the limit is reached")
    assert ended(script) == "RL"
    calls = script.calls
    assert ended(script) == "RL"
    assert script.calls == calls, "the function is not called"
    plane.say()
    eventually(lambda: ended(script) == "done", "there is none any more")


def test_a_threshold(plane_of: Callable[..., Plane]) -> None:
    """One call is under way all the time; whether a second one may begin is the control plane's to say."""
    plane = plane_of()
    entered, go_on = threading.Event(), threading.Event()

    @plane.mesh.guard("payments")
    def hold() -> None:
        entered.set()
        go_on.wait(30)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        assert entered.wait(10)
        scripts = [Script(kind, plane.mesh, "done") for kind in KINDS]
        for most, ends in ((1, "UO"), (2, "done"), (1, "UO")):
            plane.say(cluster={"circuit_breakers": {"thresholds": [{"max_requests": most}]}})
            for script in scripts:
                eventually(lambda s=script, wanted=ends: ended(s) == wanted, f"{most} at once: {ends}")
    finally:
        go_on.set()
        holding.join(10)


@pytest.mark.parametrize("kind", KINDS)
def test_an_open_circuit_outlives_the_plan(kind: str, plane_of: Callable[..., Plane]) -> None:
    plane = plane_of(breakers={"payments": CircuitBreaker(fail_max=1, reset_timeout=3600)})
    failing, well = Script(kind, plane.mesh, ValueError("no")), Script(kind, plane.mesh, "done")
    with pytest.raises(ValueError, match="no"):
        failing()
    assert ended(well) == "UO"
    before = plane.mesh.plan
    plane.say(timeout="60s")
    eventually(lambda: plane.mesh.plan is not before, "another plan")
    assert [ended(well) for _ in range(3)] == ["UO"] * 3
    assert well.calls == 0
