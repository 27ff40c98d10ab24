"""Adaptive concurrency and admission control on the routes of calls: what Envoy refuses, a mesh refuses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.balancing_envoy import chi_squared, critical_value
from differential.calls_twin import EXTENSIONS, Answer, Call, Twin, cluster, marked, virtual_host
from meshlib.engine.shedding import AdaptiveConcurrencyFilter, AdmissionControlFilter
from parts.fast_backend import FastBackend, Reply

Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]
ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
ADAPTIVE = "http.out.adaptive_concurrency.gradient_controller"
ADMISSION = "http.out.admission_control"
WINDOW = 0.1


def adaptive(status: int = 0, *, enabled: bool = True, **params: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "@type": f"{EXTENSIONS}.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        "gradient_controller_config": {
            "concurrency_limit_params": {"concurrency_update_interval": f"{WINDOW}s"},
            "min_rtt_calc_params": {"interval": "60s", **params},
        },
        "enabled": {"default_value": enabled, "runtime_key": "shed"},
    }
    if status:
        config["concurrency_limit_exceeded_status"] = {"code": status}
    return {"name": "envoy.filters.http.adaptive_concurrency", "typed_config": config}


def admission(criteria: Any = None, **config: Any) -> dict[str, Any]:
    kind = f"{EXTENSIONS}.filters.http.admission_control.v3.AdmissionControl"
    typed = {"@type": kind, "success_criteria": criteria or {}, **config}
    return {"name": "envoy.filters.http.admission_control", "typed_config": typed}


def value(name: str, number: Any) -> dict[str, Any]:
    wrapped = {"value": number} if name.startswith(("sr_", "max_")) else number
    return {name: {"default_value": wrapped, "runtime_key": name}}


def stats_of(twin: Twin, kind: type) -> dict[str, float]:
    (found,) = [each for each in twin.mesh.runtime.filters.values() if isinstance(each, kind)]
    stats: dict[str, float] = found.stats()  # type: ignore[attr-defined]
    return stats


def each_side(twin: Twin) -> list[tuple[str, Callable[[Call], Answer]]]:
    return [("envoy", twin.theirs), ("mesh", twin.ours)]


# --------------------------------------------------------------------------------------------- adaptive concurrency


@pytest.mark.parametrize(
    ("config", "admitted", "status"),
    [
        (adaptive(), 3, 503),
        (adaptive(429), 3, 429),
        (adaptive(302), 3, 503),  # no error
        (adaptive(min_concurrency=5), 5, 503),
        (adaptive(enabled=False), 12, 503),
    ],
)
def test_while_min_rtt_is_measured_few_are_let_in(
    make_twin: Make, fast_backend: Backends, config: Any, admitted: int, status: int
) -> None:
    backend = fast_backend("up", Reply(delay=0.4))
    routes = [{"match": {"prefix": "/a"}, "route": {"cluster": "up"}}, ALL]  # one limit for all routes
    twin = make_twin([virtual_host(routes)], [cluster("up", [backend.port])], [config])
    calls = [Call(str(number), "/a" if number % 2 else "/b") for number in range(12)]
    for side, send in each_side(twin):
        answers = twin.at_once(send, [marked(side, call) for call in calls])
        expected = Counter({200: admitted, status: 12 - admitted})
        assert Counter(answer.status for answer in answers) == +expected, side
        refused = [answer for answer in answers if answer.status != 200]
        assert {answer.body for answer in refused} <= {b"reached concurrency limit"}, side
        assert not any("x-envoy-overloaded" in dict(answer.headers) for answer in refused), side
        again = twin.at_once(send, [marked(f"{side}-again", call) for call in calls[:3]])
        assert [answer.status for answer in again] == [200, 200, 200], side
    if admitted < 12:
        found = twin.envoy.stats(ADAPTIVE)
        ours = stats_of(twin, AdaptiveConcurrencyFilter)
        for name in ("rq_blocked", "concurrency_limit", "min_rtt_calculation_active"):
            assert found[f"{ADAPTIVE}.{name}"] == ours[name], name


def test_the_limit_goes_the_same_way_up_and_down(make_twin: Make, fast_backend: Backends) -> None:
    """minRTT is told, and what calls take is far from it, also on a busy machine: the gradient is 2, then 0.5."""
    quick, slow = fast_backend("quick"), fast_backend("slow", Reply(delay=1.4))
    routes = [
        {"match": {"prefix": "/slow"}, "route": {"cluster": "slow"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "quick"}},
    ]
    clusters = [cluster("quick", [quick.port]), cluster("slow", [slow.port])]
    twin = make_twin([virtual_host(routes)], clusters, [adaptive(interval="60s", fixed_value="0.5s")])
    theirs: list[int] = []
    ours: list[float] = []
    for number, path in enumerate(["/"] * 5 + ["/slow"] * 3):
        (pair,) = twin.both([Call(str(number), path)])
        assert {answer.status for answer in pair} == {200}
        ours.append(stats_of(twin, AdaptiveConcurrencyFilter)["concurrency_limit"])
        time.sleep(2.5 * WINDOW)
        theirs.append(twin.envoy.stats(ADAPTIVE)[f"{ADAPTIVE}.concurrency_limit"])
    # A window of ours is closed by the call after it.
    assert ours[0] == 3
    assert ours[1:] == theirs[:-1] == [8, 20, 46, 101, 216, 118, 66]


def test_what_is_measured_ends_after_the_count_of_requests(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up", Reply(delay=0.05))
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port])], [adaptive(request_count=5)])
    active = "min_rtt_calculation_active"
    for number in range(5):
        assert twin.envoy.stats(ADAPTIVE)[f"{ADAPTIVE}.{active}"] == 1
        twin.both([Call(str(number))])
    found, ours = twin.envoy.stats(ADAPTIVE), stats_of(twin, AdaptiveConcurrencyFilter)
    assert found[f"{ADAPTIVE}.{active}"] == ours[active] == 0
    assert 50 <= found[f"{ADAPTIVE}.min_rtt_msecs"] < 100
    assert 50 <= ours["min_rtt_msecs"] < 100


# ------------------------------------------------------------------------------------------------ admission control


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"http_criteria": {"http_success_status": [{"start": 200, "end": 300}, {"start": 404, "end": 405}]}},
        {"http_criteria": {"http_success_status": [{"start": 100, "end": 600}]}},
    ],
)
def test_the_same_statuses_are_successes(make_twin: Make, fast_backend: Backends, criteria: Any) -> None:
    statuses = (200, 201, 299, 301, 400, 404, 405, 429, 499, 500, 502, 503, 504, 599)
    backend = fast_backend("up", lambda request: Reply(int(request.target[1:])))
    patient = value("rps_threshold", 100_000)
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port])], [admission(criteria, **patient)])
    for number, status in enumerate(statuses):
        for side, send in each_side(twin):
            assert send(Call(f"{side}-{number}", f"/{status}")).status == status
    found, ours = twin.envoy.stats(ADMISSION), stats_of(twin, AdmissionControlFilter)
    for name in ("rq_success", "rq_failure", "rq_rejected"):
        assert found[f"{ADMISSION}.{name}"] == ours[name], name
    assert ours["rq_success"] + ours["rq_failure"] == len(statuses)


@pytest.mark.parametrize("criteria", [{}, {"grpc_criteria": {"grpc_success_status": [0, 4, 14]}}])
def test_the_same_statuses_of_grpc_are_successes(make_twin: Make, fast_backend: Backends, criteria: Any) -> None:
    def answer(request: Any) -> Reply:
        return Reply(headers=(("content-type", "application/grpc"), ("grpc-status", request.target[1:])), body=b"")

    backend = fast_backend("up", answer)
    patient = value("rps_threshold", 100_000)
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port])], [admission(criteria, **patient)])
    for code in range(17):
        for side, send in each_side(twin):
            headers = (("content-type", "application/grpc"),)
            send(Call(f"{side}-{code}", f"/{code}", headers, "POST", body=b""))
            found, ours = twin.envoy.stats(ADMISSION), stats_of(twin, AdmissionControlFilter)
        for name in ("rq_success", "rq_failure"):
            assert found[f"{ADMISSION}.{name}"] == ours[name], (code, name)


def test_a_call_without_a_response_is_a_failure_too(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up", Reply(fault="reset"))
    patient = value("rps_threshold", 100_000)
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port])], [admission(**patient)])
    twin.both([Call(str(number)) for number in range(4)])
    found, ours = twin.envoy.stats(ADMISSION), stats_of(twin, AdmissionControlFilter)
    assert found[f"{ADMISSION}.rq_failure"] == ours["rq_failure"] == 4


@pytest.mark.parametrize(
    ("bad", "config", "expected"),
    [
        (10, {}, 0.8),
        (10, value("max_rejection_probability", 50.0), 0.5),
        (5, {}, None),
        (5, value("aggression", 2.0), None),
        (5, value("sr_threshold", 60.0), None),
        (1, {}, 0.0),
        (10, value("rps_threshold", 1000), 0.0),
    ],
)
@pytest.mark.timeout(60)
def test_as_many_are_refused(
    make_twin: Make, fast_backend: Backends, bad: int, config: Any, expected: float | None
) -> None:
    """Of ten calls `bad` fail; those that are refused count for nothing, so that the share settles at once."""
    good, failing = fast_backend("good"), fast_backend("bad", Reply(500))
    routes = [
        {"match": {"prefix": "/bad"}, "route": {"cluster": "bad"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "good"}},
    ]
    clusters = [cluster("good", [good.port]), cluster("bad", [failing.port])]
    if bad == 1:  # the least that is refused for: 95 % is the threshold
        config = {**value("sr_threshold", 85.0), **config}
    twin = make_twin([virtual_host(routes)], clusters, [admission(**config)])
    calls = [Call(str(number), "/bad" if number % 10 < bad else "/") for number in range(700)]
    pairs = twin.both(calls)[100:]
    refused = [sum(answer.body == b"" and answer.status == 503 for answer in side) for side in zip(*pairs, strict=True)]
    assert not any("x-envoy-overloaded" in dict(answer.headers) for pair in pairs for answer in pair)
    if expected == 0.0:
        assert refused == [0, 0]
        return
    theirs, ours = ({"refused": count, "sent": len(pairs) - count} for count in refused)
    statistic, degrees = chi_squared(theirs, ours)
    assert statistic < critical_value(degrees), (refused, statistic)
    if expected is not None:
        assert refused[1] / len(pairs) == pytest.approx(expected, abs=0.08)
