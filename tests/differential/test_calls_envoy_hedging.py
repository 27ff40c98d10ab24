"""Hedging, and what requests ask for in `x-envoy-*` headers: the same attempts and the same end in Envoy and meshlib.

And back-off as long as a response asks for: within the same bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from differential.calls_twin import AUTHORITY, Answer, Call, Twin, cluster, marked, virtual_host
from differential.test_calls_envoy_retries import STEPS, Scripted, told_alike
from parts.fast_backend import FastBackend, Reply

PER_TRY = 0.4  # far above what an answer takes on a busy machine
LATE = 0.8
SWIFT = {"base_interval": "0.001s", "max_interval": "0.002s"}


def hedged(retries: int, **action: Any) -> dict[str, Any]:
    return {
        "timeout": "3s",
        "retry_policy": {
            "retry_on": "5xx,reset",
            "num_retries": retries,
            "per_try_timeout": f"{PER_TRY}s",
            "retry_back_off": SWIFT,
        },
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        **action,
    }


ROUTES = {
    "one": hedged(1),
    "two": hedged(2),
    "none": hedged(0),
    "short": hedged(1, timeout="1.2s"),
    "unhedged": hedged(1, hedge_policy={}),
    "unasked": {**hedged(1), "retry_policy": {"num_retries": 1, "per_try_timeout": f"{PER_TRY}s"}},
    "plain": {"timeout": "3s"},
    "retries": {"timeout": "3s", "retry_policy": {"retry_on": "5xx", "num_retries": 1, "retry_back_off": SWIFT}},
}
SCRIPTS = {
    "one": ("200", "503,200", "hang,200", "late200,hang", "late200,503", "late503,503", "late503,200", "hang,reset",
            "late200,reset", "reset,hang,200", "404"),
    "two": ("hang,hang,200", "hang,503,200", "late503,503,503", "late200,503,503", "hang,reset,200"),
    "none": ("late200,200", "late503"),
    "short": ("hang,hang,200", "late200,hang"),
    "unhedged": ("late200,200",),
    "unasked": ("late200,503", "hang,200"),
}  # fmt: skip
ASKED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("plain", "503,200", {"retry-on": "5xx"}),
    ("plain", "503,503,503,200", {"retry-on": "5xx", "max-retries": "3"}),
    ("plain", "503,200", {"max-retries": "3"}),
    ("plain", "503,200", {"retry-on": "made-up"}),
    ("plain", "503,200", {"retry-on": "5xx", "max-retries": "0"}),
    ("plain", "503,200", {"retry-on": "5xx", "max-retries": "many"}),
    ("plain", "404,200", {"retry-on": "retriable-status-codes", "retriable-status-codes": "403, 404,x"}),
    ("plain", "404,200", {"retriable-status-codes": "404"}),
    (
        "plain",
        "limited,200",
        {"retry-on": "retriable-headers", "retriable-header-names": "X-Other, x-envoy-ratelimited"},
    ),
    ("plain", "marked,200", {"retry-on": "retriable-headers", "retriable-header-names": "x-other, X-Mark"}),
    ("plain", "grpc14,200", {"retry-grpc-on": "unavailable"}),
    ("plain", "grpc14,200", {"retry-on": "unavailable"}),
    ("plain", "503,200", {"retry-grpc-on": "5xx"}),
    ("plain", "hang,200", {"upstream-rq-timeout-ms": "300"}),
    ("plain", "hang,200", {"upstream-rq-timeout-ms": "300", "upstream-rq-timeout-alt-response": "1"}),
    ("plain", "hang,200", {"upstream-rq-per-try-timeout-ms": "300"}),
    ("plain", "hang,200", {"upstream-rq-per-try-timeout-ms": "300", "upstream-rq-timeout-alt-response": "1"}),
    ("plain", "hang,200", {"upstream-rq-per-try-timeout-ms": "300", "retry-on": "5xx"}),
    (
        "plain",
        "hang,200",
        {"upstream-rq-per-try-timeout-ms": "900", "upstream-rq-timeout-ms": "300", "retry-on": "5xx"},
    ),
    ("plain", "late200", {"upstream-rq-timeout-ms": "soon"}),
    ("plain", "late200", {"expected-rq-timeout-ms": "100"}),
    (
        "plain",
        "hang,200",
        {"upstream-rq-per-try-timeout-ms": "400", "retry-on": "5xx", "hedge-on-per-try-timeout": "true"},
    ),
    ("retries", "503,503,503,200", {"max-retries": "5"}),
    ("retries", "503,200", {"max-retries": "0"}),
    ("retries", "reset,200", {"retry-on": "reset"}),
    ("one", "late200,200", {"hedge-on-per-try-timeout": "false"}),
)
OURS = STEPS | {
    "late200": Reply(delay=LATE),
    "late503": Reply(503, delay=LATE),
    "marked": Reply(404, headers=(("x-mark", "1"),)),
}


def calls() -> list[Call]:
    """A call for each script, and for each request that asks. POST: see call_differences."""
    scripted = [(route, script, dict[str, str]()) for route, scripts in SCRIPTS.items() for script in scripts]
    return [
        Call(
            f"{number}",
            f"/{route}/x",
            (
                ("x-script", script),
                ("content-length", "0"),
                *((f"x-envoy-{name}", value) for name, value in asked.items()),
            ),
            "POST",
            AUTHORITY,
        )
        for number, (route, script, asked) in enumerate([*scripted, *ASKED])
    ]


@pytest.mark.timeout(120)
def test_overlapping_attempts_and_requests_that_ask(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    script = Scripted(OURS)
    backend = fast_backend("up", script)
    routes = [
        {"name": path, "match": {"prefix": f"/{path}/"}, "route": {"cluster": "up", **action}}
        for path, action in ROUTES.items()
    ]
    twin = make_twin(
        [virtual_host(routes, include_request_attempt_count=True)],
        [cluster("up", [backend.port], circuit_breakers={"thresholds": [{"max_retries": 100}]})],
        internal_address_config={"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
        use_remote_address=True,
    )

    def aio(call: Call) -> Answer:
        return twin.ours_aio([call])[0][0]

    every = calls()
    with ThreadPoolExecutor(48) as threads:
        sides = {
            side: [threads.submit(send, marked(side, call)) for call in every]
            for side, send in (("envoy", twin.theirs), ("mesh", twin.ours), ("aio", aio))
        }
    answers = {side: [answer.result() for answer in told] for side, told in sides.items()}
    flags = twin.flags(len(every))
    differences = []
    for side in ("mesh", "aio"):
        for call, theirs, ours in zip(every, answers["envoy"], answers[side], strict=True):
            expected, attempts = (script.sent(f"{name}-{call.id}") for name in ("envoy", side))
            told = flags[f"envoy-{call.id}"] - ({"URX"} if theirs.status == 200 else set())  # see call_differences
            if theirs.status != ours.status or attempts != expected or not told_alike(ours.flag, told):
                differences.append(
                    f"{call.path} {call.headers}: Envoy {theirs.status} {set(told)} {expected}, "
                    f"{side} {ours.status} {ours.flag} {attempts}"
                )
    load = twin.mesh.runtime.state.cluster("up").default
    assert (len(load.requests), len(load.retries)) == (0, 0)
    assert not differences, f"{len(differences)} of {2 * len(every)}\n" + "\n".join(differences)


@pytest.mark.timeout(60)
def test_responses_that_say_when_to_come_back(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    soon = str(int(time.time()) + 3)
    script = Scripted(
        STEPS
        | {
            "after1": Reply(429, headers=(("Retry-After", "1"),)),
            "after9": Reply(429, headers=(("retry-after", "9"),)),
            "after0": Reply(429, headers=(("retry-after", "0"),)),
            "words": Reply(429, headers=(("retry-after", "tomorrow"),)),
            "at": Reply(429, headers=(("x-ratelimit-reset", soon),)),
            "past": Reply(429, headers=(("x-ratelimit-reset", "1000000000"),)),
            "both": Reply(429, headers=(("retry-after", "9"), ("x-ratelimit-reset", soon))),
        }
    )
    backend = fast_backend("up", script)
    policy = {
        "retry_on": "retriable-status-codes",
        "retriable_status_codes": [429],
        "num_retries": 1,
        "retry_back_off": SWIFT,
        "rate_limited_retry_back_off": {
            "reset_headers": [
                {"name": "retry-after", "format": "SECONDS"},
                {"name": "x-ratelimit-reset", "format": "UNIX_TIMESTAMP"},
            ],
            "max_interval": "5s",
        },
    }
    action = {"cluster": "up", "timeout": "30s", "retry_policy": policy}
    twin = make_twin(
        [virtual_host([{"match": {"prefix": "/"}, "route": action}])],
        [cluster("up", [backend.port], circuit_breakers={"thresholds": [{"max_retries": 100}]})],
    )
    waits = {"after1": 1.0, "after9": 0.0, "after0": 0.0, "words": 0.0, "past": 0.0, "at": 1.5, "both": 1.5}
    every = [Call(step, "/", (("x-script", f"{step},200"), ("content-length", "0")), "POST") for step in waits]

    def timed(send: Callable[[Call], Answer], side: str, call: Call) -> tuple[int, float]:
        began = time.monotonic()
        return send(marked(side, call)).status, time.monotonic() - began

    with ThreadPoolExecutor(16) as threads:
        sides = {
            (side, call.id): threads.submit(timed, send, side, call)
            for call in every
            for side, send in (("envoy", twin.theirs), ("mesh", twin.ours))
        }
    for (side, step), answer in sides.items():
        status, took = answer.result()
        assert (status, len(script.sent(f"{side}-{step}"))) == (200, 2), (side, step)
        # A moment names a whole second, and the jitter is half of what is left until then: at most 1.5 * 3 s.
        assert took >= waits[step] - 0.1, (side, step, took)
        assert took < 5.0, (side, step, took)
