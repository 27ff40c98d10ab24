"""The policies of a route around functions, sync and async: the same answers of the same engine."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import httpx
import pybreaker
import pytest

from e2e.decorators.kinds import KINDS, Script
from meshlib import (
    CircuitBreaker,
    CircuitOpenError,
    Mesh,
    NoHealthyUpstreamError,
    NoRouteError,
    RateLimitedError,
    SharedRateLimit,
    UpstreamOverflowError,
    UpstreamTimeoutError,
)
from meshlib.context import CallContext, current
from meshlib.engine.events import CallEnded, Event
from meshlib.model.cluster import CircuitBreakers, Cluster, OutlierDetection, Thresholds
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import DirectResponseAction, RetryPolicy, Route, RouteAction
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

TWO = ["10.0.0.1:80", "10.0.0.2:80"]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def quick(*words: str, retries: int = 2, **options: Any) -> RetryPolicy:
    """Retries that wait for nearly nothing."""
    return RetryPolicy(words or ("5xx",), num_retries=retries, base_interval=0.001, previous_hosts=True, **options)


def mesh_of(retries: Any = None, endpoints: Any = (), **options: Any) -> Mesh:
    return Mesh.static({"payments": endpoints}, retries=retries, **options)


def stat(mesh: Mesh, name: str) -> int:
    return mesh.stats()[f"cluster.payments.{name}"]


def test_a_result_is_the_result(kind: str) -> None:
    script = Script(kind, mesh_of(quick()), "done")
    assert script() == "done"
    assert script.calls == 1


@pytest.mark.parametrize(
    "wrong, word, attempts",
    [
        (ConnectionRefusedError, "connect-failure", 3),
        (ConnectionResetError, "reset", 3),
        (ConnectionResetError, "connect-failure", 1),
        (ValueError, "5xx", 3),
        (ValueError, "gateway-error", 1),
        (TimeoutError, "gateway-error", 3),
    ],
)
def test_retry_on_means_what_it_means_for_a_request(
    kind: str, wrong: type[Exception], word: str, attempts: int
) -> None:
    error = wrong("no")
    script = Script(kind, mesh_of(quick(word)), error)
    with pytest.raises(wrong) as caught:
        script()
    assert caught.value is error
    assert script.calls == attempts
    assert [attempt.number for attempt in script.attempts if attempt] == list(range(1, attempts + 1))
    (note,) = error.__notes__
    assert note.startswith("meshlib: ")
    assert f"attempts={attempts}" in note


def test_a_retry_that_succeeds_is_a_success(kind: str) -> None:
    mesh = mesh_of(quick(), TWO)
    script = Script(kind, mesh, ConnectionResetError("no"), "done")
    assert script() == "done"
    first, second = (attempt.endpoint for attempt in script.attempts if attempt)
    assert {first, second} == set(TWO), "the retry went to the other endpoint"
    assert stat(mesh, "upstream_rq_retry_success") == 1


def test_an_answer_is_not_a_failure(kind: str) -> None:
    class Declined(Exception):  # noqa: N818
        pass

    mesh = mesh_of(quick())
    script = Script(kind, mesh, Declined("card"), exclude=Declined)
    with pytest.raises(Declined) as caught:
        script()
    assert script.calls == 1
    assert not hasattr(caught.value, "__notes__")
    assert stat(mesh, "upstream_rq_4xx") == 1


def test_classify_has_the_last_word(kind: str) -> None:
    def classify(result: Any, error: Exception | None) -> int | None:
        return 503 if result == "stale" or isinstance(error, KeyError) else None

    script = Script(
        kind, mesh_of(quick(retries=3)), "stale", KeyError("x"), ConnectionResetError("no"), "fresh", classify=classify
    )
    assert script() == "fresh"
    assert script.calls == 4
    stale = Script(kind, mesh_of(quick()), "stale", classify=classify)
    assert (stale(), stale.calls) == ("stale", 3), "a result that counts as a 503 to the end is still the result"


def test_arguments_that_serve_once_are_sent_again_only_if_they_never_left(kind: str) -> None:
    mesh = mesh_of(quick())
    for error, attempts in ((ConnectionResetError("no"), 1), (ConnectionRefusedError("no"), 3)):
        script = Script(kind, mesh, error, replayable=False)
        with pytest.raises(ConnectionError):
            script()
        assert script.calls == attempts


def test_what_is_no_exception_ends_the_call_and_counts_against_nobody(kind: str) -> None:
    class Stopped(BaseException):
        pass

    mesh = Mesh.static({"payments": []}, retries=quick(), breakers={"payments": CircuitBreaker(fail_max=1)})
    script = Script(kind, mesh, Stopped(), "done")
    with pytest.raises(Stopped):
        script()
    assert script() == "done"
    assert script.calls == 2


def test_the_breaker_opens_for_functions_and_clients_alike(kind: str) -> None:
    mesh = Mesh.static({"payments": TWO}, breakers={"payments": CircuitBreaker(fail_max=2)})
    script = Script(kind, mesh, ValueError("no"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            script()
    with pytest.raises(CircuitOpenError) as caught:
        script()
    assert isinstance(caught.value, pybreaker.CircuitBreakerError)
    assert script.calls == 2
    with mesh.http.client("payments") as client, pytest.raises(CircuitOpenError):
        client.get("/")


def test_a_users_pybreaker_is_shown_the_functions_own_exceptions(kind: str) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, exclude=[KeyError])
    mesh = Mesh.static({"payments": []}, breakers={"payments": breaker})
    script = Script(kind, mesh, KeyError("x"), KeyError("x"), ValueError("no"))
    for error in (KeyError, KeyError, ValueError, CircuitOpenError):
        with pytest.raises(error):
            script()


def test_thresholds_hold_across_threads(kind: str) -> None:
    cluster = Cluster("payments", type="STATIC", circuit_breakers=CircuitBreakers(default=Thresholds(max_requests=1)))
    mesh, inside, leave = Mesh.static({"payments": cluster}), threading.Event(), threading.Event()

    @mesh.guard("payments")
    def hold() -> None:
        inside.set()
        assert leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(10)
        script = Script(kind, mesh, "done")
        with pytest.raises(UpstreamOverflowError, match="max_requests"):
            script()
        assert script.calls == 0
    finally:
        leave.set()
        thread.join()
    assert script() == "done"


def test_limits_refuse_before_the_function_is_called(kind: str) -> None:
    mesh = Mesh.static({"payments": []}, rate_limits={"payments": SharedRateLimit("1/hour", "memory://")})
    script = Script(kind, mesh, "done")
    with asyncio.Runner() as runner:  # of one loop: this store counts for each by itself
        assert script(runner) == "done"
        with pytest.raises(RateLimitedError):
            script(runner)
    assert script.calls == 1


def test_outlier_detection_counts_functions(kind: str) -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    mesh = Mesh.static({"payments": static_cluster("payments", TWO, outlier_detection=detection)})
    script = Script(kind, mesh, ValueError("no"), "done")
    with pytest.raises(ValueError, match="no"):
        script()
    first = script.attempts[0]
    assert first is not None
    assert [script() for _ in range(4)] == ["done"] * 4
    assert {attempt.endpoint for attempt in script.attempts[1:] if attempt} == set(TWO) - {first.endpoint}


def test_the_request_chooses_the_route(kind: str) -> None:
    gold = RouteMatch(PathMatcher("prefix", "/charge"))
    answer = Route(RouteMatch(PathMatcher("prefix", "/")), DirectResponseAction(451, b"not here"))
    routes = [Route(gold, RouteAction("payments", retry_policy=quick())), answer]
    mesh = Mesh.static({"payments": []}, routes={"pay": routes})
    script = Script(kind, mesh, ValueError("no"), "done", service="pay", path="/charge/1")
    assert script() == "done"
    elsewhere = Script(kind, mesh, "done", service="pay", path="/refund")
    with pytest.raises(NoRouteError, match=r"the mesh answers 451 itself \(not here\); the function was not called"):
        elsewhere()
    assert elsewhere.calls == 0


def test_a_host_the_mesh_does_not_know(kind: str) -> None:
    script = Script(kind, mesh_of(), "done", service="elsewhere")
    assert script() == "done"
    assert script.attempts == [None]
    with pytest.raises(NoRouteError):
        Script(kind, mesh_of(unknown_hosts="reject"), "done", service="elsewhere")()


def test_endpoints_that_are_all_down_refuse(kind: str) -> None:
    from dataclasses import replace

    from meshlib.model.endpoint import Address, LbEndpoint

    down = static_cluster("payments", [LbEndpoint(Address("10.0.0.1", 80), health_status="UNHEALTHY")])
    script = Script(kind, Mesh.static({"payments": replace(down, healthy_panic_threshold=0)}), "done")
    with pytest.raises(NoHealthyUpstreamError):
        script()
    assert script.calls == 0


# Time ---------------------------------------------------------------------------------------------------------------


def test_the_deadline_is_inherited_and_handed_on(kind: str) -> None:
    mesh = mesh_of(timeout=30.0)
    seen: list[float | None] = []

    def look(result: Any, error: Exception | None) -> None:
        context = current.get()
        seen.append(context.deadline)

    token = current.set(CallContext(deadline := time.monotonic() + 5.0, "me", ()))
    try:
        script = Script(kind, mesh, "done", classify=look)
        script()
    finally:
        current.reset(token)
    (attempt,) = script.attempts
    assert attempt is not None
    assert attempt.deadline == deadline
    assert 0 < (attempt.remaining() or 0) <= 5
    assert seen == [deadline], "the function's caller has its own context back"


def test_a_deadline_that_has_passed_calls_nothing(kind: str) -> None:
    token = current.set(CallContext(time.monotonic() - 1.0))
    try:
        script = Script(kind, mesh_of(), "done")
        with pytest.raises(UpstreamTimeoutError) as caught:
            script()
    finally:
        current.reset(token)
    assert isinstance(caught.value, TimeoutError)
    assert script.calls == 0
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    assert (type(again), again.flag, str(again)) == (type(caught.value), "UT", str(caught.value))


def test_a_failure_after_the_deadline_is_a_timeout_and_still_the_functions_own(kind: str) -> None:
    mesh = mesh_of(quick(), timeout=0.02)

    class Late(OSError):  # noqa: N818
        def __init__(self) -> None:
            super().__init__("late")
            time.sleep(0.03)  # the event loop stands still meanwhile: nobody can cancel

    def function() -> None:
        raise Late

    async def afunction() -> None:
        raise Late

    guard = mesh.guard("payments")
    with pytest.raises(Late) as caught:
        guard(function)() if kind == "sync" else asyncio.run(guard(afunction)())
    assert stat(mesh, "upstream_rq_total") == 1, "there was no time for another attempt"
    assert any("attempts=1" in note for note in caught.value.__notes__)


# Calls inside calls -------------------------------------------------------------------------------------------------


def test_retries_do_not_multiply(kind: str, fast_backend: Callable[..., FastBackend]) -> None:
    """A guarded function that calls through the mesh: the client retries, the guard does not do it again."""
    backend = fast_backend("b", Reply(503))
    mesh = Mesh.static({"payments": [], "ledger": [backend.address]}, retries=quick())

    def check(response: httpx.Response) -> None:
        response.raise_for_status()

    guard = mesh.guard("payments")

    def function() -> None:
        with mesh.http.client("ledger") as client:
            check(client.get("/"))

    async def afunction() -> None:
        async with mesh.http.async_client("ledger") as client:
            check(await client.get("/"))

    with pytest.raises(httpx.HTTPStatusError) as caught:
        guard(function)() if kind == "sync" else asyncio.run(guard(afunction)())
    assert backend.count == 3
    assert stat(mesh, "upstream_rq_total") == 1
    assert "attempts=1" in caught.value.__notes__[-1]


def test_retries_of_grpc_calls_do_not_multiply(
    kind: str, grpc_stubs: Stubs, echo_backends: Callable[[int], list[GrpcBackend]]
) -> None:
    (backend,) = echo_backends(1)
    backend.behave(statuses=[14] * 9)
    asked = RetryPolicy(("5xx", "unavailable"), num_retries=2, base_interval=0.001)
    mesh = Mesh.static({"payments": [], "ledger": [backend.address]}, retries=asked)
    guard = mesh.guard("payments")

    def function() -> None:
        with mesh.grpc.channel("ledger") as channel:
            grpc_stubs.echo(channel).Unary(grpc_stubs.ask())

    async def afunction() -> None:
        async with mesh.grpc.aio_channel("ledger") as channel:
            await grpc_stubs.echo(channel).Unary(grpc_stubs.ask())

    with pytest.raises(grpc.RpcError) as caught:
        guard(function)() if kind == "sync" else asyncio.run(guard(afunction)())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert backend.count == 3
    assert stat(mesh, "upstream_rq_total") == 1


def test_guards_in_guards_do_not_multiply_either(kind: str) -> None:
    mesh = mesh_of(quick())
    outer = mesh.guard("payments")
    error = ValueError("no")
    inner = Script(kind, mesh, error)
    for _ in range(2):  # the same object again is not taken for a failure of the first call
        with pytest.raises(ValueError, match="no"):
            outer(inner._guarded)() if kind == "sync" else asyncio.run(outer(inner._guarded)())
    assert inner.calls == 6
    assert len(error.__notes__) == 2, "one of each guard, once"


def test_observers_are_told(kind: str) -> None:
    mesh, events = mesh_of(quick(), TWO), list[Event]()
    mesh.on_event(events.append)
    Script(kind, mesh, ValueError("no"), "done", path="/charge", method="POST")()
    assert [type(event).__name__ for event in events if type(event).__name__ != "PlanChanged"] == [
        "AttemptEnded",
        "AttemptEnded",
        "CallEnded",
    ]
    (ended,) = (event for event in events if isinstance(event, CallEnded))
    assert (ended.method, ended.authority, ended.path, ended.status, ended.flag) == (
        "POST",
        "payments",
        "/charge",
        200,
        None,
    )


@pytest.mark.parametrize("wrong", [ValueError, ConnectionRefusedError, TimeoutError])
def test_an_exception_that_was_dealt_with_is_gone_at_once(kind: str, wrong: type[Exception]) -> None:
    """Its traceback must not lead back to it, or every failure would wait for the garbage collector."""

    class Mine(wrong):  # type: ignore[misc, valid-type]
        """One that can be referred to weakly."""

    def fail() -> None:
        raise Mine("no")

    async def afail() -> None:
        raise Mine("no")

    guard = mesh_of(quick()).guard("payments")
    found: list[weakref.ref[Exception]] = []

    def blocking() -> None:
        try:
            guard(fail)()
        except Mine as error:
            found.append(weakref.ref(error))

    async def awaited() -> None:
        try:
            await guard(afail)()
        except Mine as error:
            found.append(weakref.ref(error))

    gc.collect()
    gc.disable()
    try:
        blocking() if kind == "sync" else asyncio.run(awaited())
        assert found[0]() is None
    finally:
        gc.enable()


class _HandledError(Exception):
    """One that can be referred to weakly."""


@pytest.mark.parametrize("leave_behind", [True, False])
def test_a_guarded_function_keeps_few_of_the_failures_it_has_dealt_with(kind: str, leave_behind: bool) -> None:
    """Neither while it runs, nor when what it has left behind (a task, a thread in its context) goes on failing."""
    guard = mesh_of().guard("payments")
    alive: list[weakref.ref[Exception]] = []

    def raising() -> None:
        error = _HandledError("no")
        alive.append(weakref.ref(error))
        raise error

    def calls(number: int) -> None:
        for _ in range(number):
            with contextlib.suppress(_HandledError):
                guard(raising)()

    def blocking() -> Callable[[], None]:
        if not leave_behind:
            calls(200)
        return partial(contextvars.copy_context().run, calls, 200)

    async def awaited() -> Callable[[], None]:
        return blocking()

    behind = guard(blocking)() if kind == "sync" else asyncio.run(guard(awaited)())  # type: ignore[arg-type]
    if leave_behind:
        behind()
    gc.collect()
    most = sum(reference() is not None for reference in alive)
    assert len(alive) == 200
    assert most <= 32
