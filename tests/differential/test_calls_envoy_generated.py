"""Generated retry policies, timeouts and upstream behaviour: the same attempts and the same end in Envoy and meshlib.

Hypothesis draws whole configurations (a route for each policy) and the scripts its calls meet, and shrinks a difference
to the least policy and script that show it. The examples are the same ones in every run: each one starts an Envoy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from differential.calls_twin import AUTHORITY, Call, Twin, cluster, virtual_host
from differential.test_calls_envoy_retries import STEPS, Scripted, routes_by_path, told_alike
from parts.fast_backend import FastBackend

WORDS = (
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx"),
    *("retriable-status-codes", "envoy-ratelimited", "cancelled", "unavailable", "made-up", "retriable-headers"),
)
INTERNAL = {
    "use_remote_address": True,
    "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
}
"""Callers on this machine are internal, so that their `x-envoy-*` headers are heeded."""
SWIFT = {"base_interval": "0.001s", "max_interval": "0.002s"}
ANSWERS = sorted(name for name in STEPS if name != "hang")

policies = st.fixed_dictionaries(
    {
        "retry_on": st.lists(st.sampled_from(WORDS), max_size=4, unique=True).map(",".join),
        "retry_back_off": st.just(SWIFT),
    },
    optional={
        "num_retries": st.integers(0, 4),
        "retriable_status_codes": st.lists(st.sampled_from([404, 409, 429, 500, 503]), min_size=1, max_size=3),
        "per_try_timeout": st.just("0.4s"),
        "retriable_headers": st.lists(
            st.sampled_from(
                [
                    {"name": "grpc-status", "string_match": {"exact": "1"}},
                    {"name": "grpc-status"},
                    {"name": "x-envoy-ratelimited", "present_match": True},
                    {"name": ":status", "string_match": {"prefix": "50"}},
                    {"name": "x-nowhere", "invert_match": True},
                ]
            ),
            min_size=1,
            max_size=2,
        ),
        "retriable_request_headers": st.lists(
            st.sampled_from([{"name": "x-retry"}, {"name": ":method", "string_match": {"exact": "PUT"}}]),
            min_size=1,
            max_size=2,
        ),
    },
)
asking = st.lists(
    st.sampled_from(
        [
            ("x-retry", "1"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-retry-on", "retriable-headers,retriable-status-codes"),
            ("x-envoy-retry-grpc-on", "unavailable,cancelled"),
            ("x-envoy-max-retries", "3"),
            ("x-envoy-max-retries", "0"),
            ("x-envoy-retriable-status-codes", "404,500"),
            ("x-envoy-retriable-header-names", "grpc-status"),
        ]
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)
# A call's own timeout is far from any sum of per-try timeouts, so that no clock decides who wins.
timeouts = st.sampled_from(["0s", "5s", "1.5s"])
scripts = st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=5)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str], list[Call]]:
    """Policies and timeouts by path, and the calls that meet them; a few calls meet silence first."""
    named = {f"p{index}": draw(policies) for index in range(draw(st.integers(1, 6)))}
    limits = {path: draw(timeouts) for path in named}
    calls = []
    for path, policy in named.items():
        for number in range(4):
            steps = draw(scripts)
            bounded = "per_try_timeout" in policy or limits[path] == "1.5s"
            if bounded and number == 3:
                steps = ["hang", *steps]
            # POST: idempotent requests are sent again when a kept connection breaks (see call_differences).
            headers = (("x-script", ",".join(steps)), ("content-length", "0"), *draw(asking))
            calls.append(Call(f"{path}-{number}", f"/{path}/x", headers, "POST", AUTHORITY))
    return named, limits, calls


@pytest.mark.timeout(180)
def test_generated_policies_make_the_same_attempts(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    retried: list[str] = []

    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(worlds())
    def alike(world: tuple[dict[str, Any], dict[str, str], list[Call]]) -> None:
        named, limits, calls = world
        script = Scripted()
        backend = fast_backend("up", script)
        routes = [route for path in named for route in routes_by_path({path: named[path]}, "up", timeout=limits[path])]
        twin = make_twin(
            [virtual_host(routes, include_request_attempt_count=True)], [cluster("up", [backend.port])], **INTERNAL
        )
        pairs = twin.both(calls)
        flags = twin.flags(len(calls))
        for call, (theirs, ours) in zip(calls, pairs, strict=True):
            path = call.path.split("/")[1]
            expected, attempts = script.sent(f"envoy-{call.id}"), script.sent(f"mesh-{call.id}")
            case = f"{named[path]} timeout {limits[path]}: {call.headers}"
            assert (ours.status, attempts) == (theirs.status, expected), case
            assert told_alike(ours.flag, flags[f"envoy-{call.id}"]), case
            retried.extend(call.id for _ in attempts[1:])
        twin.close()

    alike()
    assert len(retried) > 10, "too few retries for the test to mean anything"
