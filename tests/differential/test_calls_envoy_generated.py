"""Generated retry policies, timeouts and upstream behaviour: the same attempts and the same end in Envoy and meshlib.

One Envoy has a route for each of a hundred policies and more. They and the scripts that their calls meet are drawn by a
seed: the same ones in every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from differential import draws as st
from differential.calls_twin import AUTHORITY, Answer, Call, Twin, cluster, marked, virtual_host
from differential.test_calls_envoy_retries import STEPS, Scripted, routes_by_path, told_alike
from parts.fast_backend import FastBackend

Json = dict[str, Any]
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

ROOM = {"thresholds": [{"max_retries": 1_000}]}
"""Calls that meet silence are made at the same time, and none of them lacks a retry for the others'."""
CALLS_PER_POLICY = 6
MORE = range(2, 10)
"""Seeds of a soak."""

words = st.lists(st.sampled_from(WORDS), max_size=7, unique_by=str)
header_matchers = st.sampled_from(
    [
        {"name": "grpc-status", "string_match": {"exact": "1"}},
        {"name": "grpc-status"},
        {"name": "x-envoy-ratelimited", "present_match": True},
        {"name": ":status", "string_match": {"prefix": "50"}},
        {"name": "x-nowhere", "invert_match": True},
    ]
)
request_matchers = st.sampled_from([{"name": "x-retry"}, {"name": ":method", "string_match": {"exact": "PUT"}}])
OPTIONAL: dict[str, st.Strategy[Any]] = {
    "num_retries": st.integers(0, 4),
    "retriable_status_codes": st.lists(st.sampled_from([404, 409, 429, 500, 503]), 1, 3),
    "per_try_timeout": st.just("0.4s"),
    "retriable_headers": st.lists(header_matchers, 1, 2),
}
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
failures = st.lists(st.sampled_from([name for name in ANSWERS if name not in ("200", "201")]), 1, 5)
scripts = st.one_of(failures, st.lists(st.sampled_from(ANSWERS), 1, 5))


@st.composite
def policies(draw: st.DrawFn) -> Json:
    chosen = {name: draw(value) for name, value in OPTIONAL.items() if draw(st.booleans())}
    if draw(st.integers(0, 4)) == 4:  # seldom, for it keeps most calls from retries
        chosen["retriable_request_headers"] = draw(st.lists(request_matchers, 1, 2))
    return {"retry_on": ",".join(draw(words)), "retry_back_off": SWIFT, **chosen}


@st.composite
def calls_of(draw: st.DrawFn, path: str, silence: bool) -> list[Call]:
    """Calls that meet a policy; the last one meets silence first, if something ends it."""
    calls = []
    for number in range(CALLS_PER_POLICY):
        steps = draw(scripts)
        if silence and number == CALLS_PER_POLICY - 1:
            steps = ["hang", *steps]
        # POST: idempotent requests are sent again when a kept connection breaks (see call_differences).
        headers = (("x-script", ",".join(steps)), ("content-length", "0"), *draw(asking))
        calls.append(Call(f"{path}-{number}", f"/{path}/x", headers, "POST", AUTHORITY))
    return calls


def both(twin: Twin, calls: list[Call]) -> dict[str, tuple[Answer, Answer]]:
    """(Envoy's answer, ours) by call."""
    silent = [call for call in calls if "hang" in dict(call.headers)["x-script"]]
    others = [call for call in calls if call not in silent]
    theirs = twin.at_once(twin.theirs, [marked("envoy", call) for call in silent])
    ours = twin.at_once(twin.ours, [marked("mesh", call) for call in silent])
    pairs = [*twin.both(others), *zip(theirs, ours, strict=True)]
    return {call.id: pair for call, pair in zip([*others, *silent], pairs, strict=True)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("seed", "count"), [(1, 150), *(pytest.param(n, 400, marks=pytest.mark.slow) for n in MORE)])
def test_generated_policies_make_the_same_attempts(
    seed: int, count: int, make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    rng = random.Random(seed)
    named = {f"p{number}": policies().by(rng) for number in range(count)}
    limits = {path: timeouts.by(rng) for path in named}
    calls = [
        call
        for path, policy in named.items()
        for call in calls_of(path, "per_try_timeout" in policy or limits[path] == "1.5s").by(rng)
    ]
    script = Scripted()
    backend = fast_backend("up", script)
    routes = [route for path in named for route in routes_by_path({path: named[path]}, "up", timeout=limits[path])]
    twin = make_twin(
        [virtual_host(routes, include_request_attempt_count=True)],
        [cluster("up", [backend.port], circuit_breakers=ROOM)],
        **INTERNAL,
    )
    answers = both(twin, calls)
    flags = twin.flags(len(calls))
    differences, retried = [], 0
    for call in calls:
        theirs, ours = answers[call.id]
        expected, attempts = script.sent(f"envoy-{call.id}"), script.sent(f"mesh-{call.id}")
        same = (ours.status, attempts) == (theirs.status, expected)
        if not same or not told_alike(ours.flag, flags[f"envoy-{call.id}"]):
            path = call.path.split("/")[1]
            differences.append(
                f"{named[path]} timeout {limits[path]}: {call.headers}\n  Envoy {theirs.status} "
                f"{set(flags[f'envoy-{call.id}'])} {expected}\n  mesh  {ours.status} {ours.flag} {attempts}"
            )
        retried += len(attempts) > 1
    assert not differences, f"{len(differences)} of {len(calls)} differ\n" + "\n".join(differences[:5])
    assert retried > count, "too few retries for the test to mean anything"
