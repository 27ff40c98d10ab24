"""Retries and timeouts of whole calls: upstreams that follow a script, the same attempts and the same end in both."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from differential.calls_twin import AUTHORITY, CALL_ID, Answer, Call, Twin, cluster, virtual_host
from parts.backend import Backend
from parts.fast_backend import FastBackend, Reply, Request

CALLS_PER_POLICY = 12
POLICIES = {
    "5xx": {"retry_on": "5xx", "num_retries": 2},
    "gateway": {"retry_on": "gateway-error", "num_retries": 2},
    "reset": {"retry_on": "reset", "num_retries": 1},
    "reset-before": {"retry_on": "reset-before-request", "num_retries": 2},
    "connect": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
    "4xx": {"retry_on": "retriable-4xx", "num_retries": 3},
    "codes": {"retry_on": "retriable-status-codes", "num_retries": 2, "retriable_status_codes": [404, 503]},
    "limited": {"retry_on": "envoy-ratelimited", "num_retries": 2},
    "grpc": {"retry_on": "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable", "num_retries": 2},
    "many": {"retry_on": "5xx,retriable-4xx,reset", "num_retries": 5},
    "one": {"retry_on": "5xx"},
    "nothing": {"num_retries": 3},
    "none": None,
}
STEPS = {
    "hang": Reply(fault="hang"),
    "reset": Reply(fault="reset"),
    "close": Reply(fault="close"),
    "limited": Reply(503, headers=(("x-envoy-ratelimited", "true"),)),
    "grpc14": Reply(200, headers=(("grpc-status", "14"),)),
    "grpc1": Reply(200, headers=(("grpc-status", "1"),)),
    **{str(status): Reply(status) for status in (200, 201, 404, 409, 429, 500, 501, 502, 503, 504)},
}
PER_TRY = 0.4  # far above what an answer takes on a busy machine


class Scripted:
    """Answers attempt n of a call by step n of its `x-script` (then by the last one); notes every attempt."""

    def __init__(self, steps: dict[str, Reply] = STEPS) -> None:
        self._steps = steps
        self.attempts: dict[str, list[Request]] = defaultdict(list)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            seen = self.attempts[request.header(CALL_ID) or ""]
            seen.append(request)
            number = len(seen)
        steps = (request.header("x-script") or "200").split(",")
        return self._steps[steps[min(number, len(steps)) - 1]]

    def sent(self, call: str) -> list[tuple[str | None, bool]]:
        """Each attempt's number as it says itself, and whether it carries a timeout."""
        with self._lock:
            return [
                (request.header("x-envoy-attempt-count"), request.header("x-envoy-expected-rq-timeout-ms") is not None)
                for request in self.attempts[call]
            ]


def routes_by_path(policies: dict[str, Any], name: str, **action: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": path,
            "match": {"prefix": f"/{path}/"},
            "route": {"cluster": name, **action, **({"retry_policy": policy} if policy is not None else {})},
        }
        for path, policy in policies.items()
    ]


@pytest.mark.timeout(180)
def test_scripted_upstreams_are_retried_alike(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    script = Scripted()
    backend = fast_backend("up", script)
    fast = {"base_interval": "0.001s", "max_interval": "0.002s"}
    policies = {
        name: policy and {**policy, "per_try_timeout": f"{PER_TRY}s", "retry_back_off": fast}
        for name, policy in POLICIES.items()
    }
    routes = routes_by_path(policies, "up", timeout="5s")
    twin = make_twin([virtual_host(routes, include_request_attempt_count=True)], [cluster("up", [backend.port])])
    calls = list(scripts())
    answers = twin.all_doors(calls)
    flags = twin.flags(len(calls))
    differences = []
    for call, (theirs, sync, aio) in zip(calls, answers, strict=True):
        expected, envoy_flags = script.sent(f"envoy-{call.id}"), flags[f"envoy-{call.id}"]
        for side, ours in (("mesh", sync), ("aio", aio)):
            attempts = script.sent(f"{side}-{call.id}")
            if theirs.status != ours.status or attempts != expected or not told_alike(ours.flag, envoy_flags):
                differences.append(
                    f"{call.path} {call.headers}: Envoy {theirs.status} {set(envoy_flags)} {expected}, "
                    f"{side} {ours.status} {ours.flag} {attempts}"
                )
    assert not differences, f"{len(differences)} of {2 * len(calls)}\n" + "\n".join(differences)
    assert sum(len(script.attempts[f"mesh-{call.id}"]) > 1 for call in calls) > 30


def scripts() -> Iterator[Call]:
    """Random scripts for every policy, the same ones every time. Few hang: each costs time."""
    rng = random.Random(20)
    names = [name for name in STEPS if name != "hang"]
    for path in POLICIES:
        for number in range(CALLS_PER_POLICY):
            steps = rng.choices(names, k=rng.randint(1, 4))
            if number % 6 == 5:
                steps.insert(0, "hang")
            if path == "none":
                steps = [step for step in steps if step != "hang"] or ["503"]
            # POST: idempotent requests are sent again when a kept connection breaks (see call_differences).
            headers = (("x-script", ",".join(steps)), ("content-length", "0"))
            yield Call(f"{path}-{number}", f"/{path}/x", headers, "POST", AUTHORITY)


def told_alike(ours: str, theirs: frozenset[str]) -> bool:
    """Our word is one of Envoy's; without one, Envoy has none either."""
    return ours in theirs if ours else not theirs


@pytest.mark.timeout(120)
def test_timeouts_end_calls_alike(make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]) -> None:
    script = Scripted()
    backend = fast_backend("up", script)
    retry = {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}}
    actions = {
        "route": {"timeout": "0.2s"},
        "route-retries": {"timeout": "0.25s", "retry_policy": {**retry, "num_retries": 3}},
        "per-try": {"timeout": "5s", "retry_policy": {**retry, "num_retries": 2, "per_try_timeout": "0.1s"}},
        "per-try-unasked": {"timeout": "5s", "retry_policy": {"num_retries": 2, "per_try_timeout": "0.1s"}},
        "per-try-long": {"timeout": "0.2s", "retry_policy": {**retry, "num_retries": 2, "per_try_timeout": "2s"}},
        "per-try-idle": {"timeout": "5s", "retry_policy": {**retry, "num_retries": 2, "per_try_idle_timeout": "0.1s"}},
        "idle": {"timeout": "5s", "idle_timeout": "0.2s"},
        "idle-retries": {"timeout": "5s", "idle_timeout": "0.2s", "retry_policy": {**retry, "num_retries": 2}},
        "idle-off": {"timeout": "0.4s", "idle_timeout": "0s"},
        "manager-idle": {"timeout": "5s"},
        "duration": {"timeout": "5s", "max_stream_duration": {"max_stream_duration": "0.2s"}},
        "duration-only": {
            "timeout": "0.1s",
            "idle_timeout": "0s",
            "max_stream_duration": {"max_stream_duration": "0.5s"},
        },
        "duration-off": {
            "timeout": "0.1s",
            "idle_timeout": "0.4s",
            "max_stream_duration": {"max_stream_duration": "0s"},
        },
        "manager-duration": {"timeout": "0s", "idle_timeout": "0s"},
    }
    routes = [
        {"name": path, "match": {"path": f"/{path}"}, "route": {"cluster": "up", **action}}
        for path, action in actions.items()
    ]
    twin = make_twin(
        [virtual_host(routes, include_request_attempt_count=True)],
        [cluster("up", [backend.port])],
        stream_idle_timeout="0.6s",
        common_http_protocol_options={"max_stream_duration": "0.9s"},
    )

    def hanging(side: str) -> list[Call]:
        return [Call(f"{side}-{path}", f"/{path}", (("x-script", "hang"),)) for path in actions]

    def timed(send: Callable[[Call], Answer], side: str) -> list[tuple[Answer, float]]:
        moments = [time.monotonic()]
        answers = []
        for call in hanging(side):
            answers.append(send(call))
            moments.append(time.monotonic())
        return [(answer, end - begin) for answer, (begin, end) in zip(answers, pairwise(moments), strict=True)]

    with ThreadPoolExecutor(3) as sides:  # each side one call after the other, the sides at the same time
        doors = {
            "envoy": sides.submit(timed, twin.theirs, "envoy"),
            "mesh": sides.submit(timed, twin.ours, "mesh"),
            "aio": sides.submit(twin.ours_aio, hanging("aio")),
        }
    told = {
        (side, path): (answer, took, len(script.attempts[f"{side}-{path}"]))
        for side, door in doors.items()
        for path, (answer, took) in zip(actions, door.result(), strict=True)
    }
    flags = twin.flags(len(actions))
    for side, path in ((side, path) for side in ("mesh", "aio") for path in actions):
        (theirs, their_time, their_attempts), (ours, our_time, our_attempts) = told["envoy", path], told[side, path]
        where = (side, path, theirs.status, flags[f"envoy-{path}"], their_time, ours, our_time)
        assert theirs.status == ours.status == 504, where
        assert their_attempts == our_attempts, where
        assert abs(their_time - our_time) < 0.15, where
        # Envoy has no flag for a stream's duration.
        assert ours.flag in (flags[f"envoy-{path}"] or {"UT" if "duration" in path else "-"}), where


@pytest.mark.timeout(120)
def test_silence_within_a_body_breaks_it_off_and_slowness_does_not(
    make_twin: Callable[..., Twin], backend: Callable[..., Backend]
) -> None:
    upstream = backend("up")
    routes = [
        {"match": {"path": "/patient"}, "route": {"cluster": "up", "timeout": "5s", "idle_timeout": "2s"}},
        {"match": {"path": "/idle"}, "route": {"cluster": "up", "timeout": "5s", "idle_timeout": "0.3s"}},
        {"match": {"path": "/route"}, "route": {"cluster": "up", "timeout": "0.3s", "idle_timeout": "5s"}},
    ]
    twin = make_twin([virtual_host(routes)], [cluster("up", [upstream.port])])
    calls = [
        Call("whole", "/patient?chunks=3&chunk_delay=0.5&size=3000"),
        Call("steady", "/idle?chunks=6&chunk_delay=0.1&size=3000"),
        Call("silent", "/idle?chunks=2&chunk_delay=0.8&size=3000"),
        Call("late", "/route?chunks=2&chunk_delay=0.8&size=3000"),
    ]
    answers = dict(zip([call.id for call in calls], twin.all_doors(calls), strict=True))
    flags = twin.flags(len(calls))
    for name in ("whole", "steady"):
        theirs, *both_doors = answers[name]
        for ours in both_doors:
            assert (theirs.status, theirs.whole, len(theirs.body)) == (ours.status, ours.whole, len(ours.body)), name
            assert (ours.whole, ours.flag, flags[f"envoy-{name}"]) == (True, "", frozenset())
    for name, flag in (("silent", "SI"), ("late", "UT")):
        theirs, *both_doors = answers[name]
        for ours in both_doors:
            assert (theirs.status, theirs.whole) == (ours.status, ours.whole) == (200, False), name
            assert ours.flag == flag
            assert flag in flags[f"envoy-{name}"]


def test_only_what_is_idempotent_is_sent_again_when_a_kept_connection_breaks(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    """The difference that call_differences tells of, and its bounds."""
    script = Scripted()
    backend = fast_backend("up", script)
    routes = routes_by_path({"none": None}, "up")
    twin = make_twin([virtual_host(routes, include_request_attempt_count=True)], [cluster("up", [backend.port])])
    broken = (("x-script", "reset,200"), ("content-length", "0"))
    calls = [
        Call("warm", "/none/"),
        Call("get", "/none/", broken),
        Call("warm-again", "/none/"),
        Call("post", "/none/", broken, "POST"),
    ]
    (_, get, _, post) = twin.both(calls)
    assert [answer.status for answer in get] == [503, 200]
    assert script.sent("mesh-get") == [("1", True), ("1", True)]
    assert [answer.status for answer in post] == [503, 503]
    for call in ("envoy-get", "envoy-post", "mesh-post"):
        assert script.sent(call) == [("1", True)], call
