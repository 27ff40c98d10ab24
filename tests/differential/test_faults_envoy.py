"""One fault filter in Envoy and in a mesh: what is aborted, delayed, slowed, by whom and how often."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.balancing_envoy import chi_squared, critical_value
from differential.calls_twin import EXTENSIONS, Answer, Call, Twin, cluster, marked, virtual_host
from parts.fast_backend import FastBackend, Reply

Json = dict[str, Any]
Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]
NAME = "envoy.filters.http.fault"
ALL: Json = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
ALWAYS = {"numerator": 100}
HEADERS = "x-envoy-fault"


def fault(**config: Any) -> Json:
    return {"@type": f"{EXTENSIONS}.filters.http.fault.v3.HTTPFault", **config}


def in_chain(**config: Any) -> list[Json]:
    return [{"name": NAME, "typed_config": fault(**config)}]


def abort(status: int = 503, percentage: Json = ALWAYS) -> Json:
    return {"http_status": status, "percentage": percentage}


def delay(seconds: float, percentage: Json = ALWAYS) -> Json:
    return {"fixed_delay": f"{seconds}s", "percentage": percentage}


BY_HEADER = {
    "abort": {"header_abort": {}, "percentage": ALWAYS},
    "delay": {"header_delay": {}, "percentage": ALWAYS},
    "response_rate_limit": {"header_limit": {}, "percentage": ALWAYS},
}


@pytest.fixture
def twin_of(make_twin: Make, fast_backend: Backends) -> Callable[..., Twin]:
    """``twin_of(routes, filters, **more)``: both in front of a backend `up` (and `other`)."""

    def make(routes: list[Json], filters: list[Json], runtime: Json | None = None, **reply: Any) -> Twin:
        up = fast_backend("up", Reply(**reply))
        other = fast_backend("other", Reply(**reply))
        return make_twin(
            [virtual_host(routes)],
            [cluster("up", [up.port]), cluster("other", [other.port])],
            filters,
            runtime=runtime,
        )

    return make


def told(answer: Answer) -> tuple[int, bytes, str]:
    kind = dict(answer.headers).get("content-type", "")
    return answer.status, answer.body if answer.status != 200 else b"", kind if answer.status != 200 else ""


def check_alike(twin: Twin, calls: list[Call]) -> list[Answer]:
    """Each call is answered alike by both, through every door, and has the same flags; ours."""
    answers = twin.all_doors(calls)
    flags = twin.flags(len(calls))
    for call, (theirs, ours, aio) in zip(calls, answers, strict=True):
        assert told(theirs) == told(ours) == told(aio), call
        assert ",".join(sorted(flags[f"envoy-{call.id}"])) == ours.flag == aio.flag, call
    return [ours for _, ours, _ in answers]


STATS = ("aborts_injected", "delays_injected", "faults_overflow", "response_rl_injected", "active_faults")


def stats_of(twin: Twin) -> tuple[Json, Json]:
    theirs = twin.envoy.stats(r"http\.out\.fault\.")
    theirs = {name.removeprefix("http.out."): value for name, value in theirs.items()}
    ours = twin.mesh.stats()
    return theirs, {name: ours.get(name, 0) for name in theirs}


# ------------------------------------------------------------------------------------------------------------ aborts


@pytest.mark.parametrize(
    "config",
    [
        {"abort": abort(503)},
        {"abort": abort(200)},
        {"abort": abort(404)},
        {"abort": abort(599)},
        {"abort": {"grpc_status": 14, "percentage": ALWAYS}},
        {"abort": {"http_status": 503}},
        {"abort": abort(503, {"numerator": 0})},
        {"abort": abort(503, {"numerator": 1_000_000, "denominator": "MILLION"})},
        {"abort": abort(503), "upstream_cluster": "up"},
        {"abort": abort(503), "upstream_cluster": "other"},
        {"abort": abort(503), "max_active_faults": 0},
        {"abort": abort(503), "max_active_faults": 1},
        {"abort": abort(503), "downstream_nodes": ["a", "b"]},
        {"abort": abort(503), "headers": [{"name": "x-user", "string_match": {"exact": "me"}}]},
        {"abort": abort(503), "headers": [{"name": ":path", "string_match": {"prefix": "/other"}}, {"name": "x-user"}]},
        {"abort": abort(503), "headers": [{"name": "x-user", "present_match": True, "invert_match": True}]},
        {"delay": delay(0.01), "abort": abort(418)},
        {"delay": delay(0.01)},
        {"delay": delay(0.01, {"numerator": 0}), "abort": abort(418)},
        {"delay": delay(0.01), "max_active_faults": 0},
        {},
    ],
)
def test_who_is_aborted_or_delayed(twin_of: Callable[..., Twin], config: Json) -> None:
    routes = [
        {"match": {"prefix": "/other"}, "route": {"cluster": "other"}},
        {"match": {"prefix": "/named"}, "route": {"cluster_header": "x-cluster"}},
        {"match": {"prefix": "/answer"}, "direct_response": {"status": 202}},
        {
            "match": {"prefix": "/weighted"},
            "route": {"weighted_clusters": {"clusters": [{"name": "other", "weight": 1}]}},
        },
        {
            "match": {"prefix": "/headers"},
            "route": {"cluster": "up"},
            "response_headers_to_add": [{"header": {"key": "x-route", "value": "yes"}}],
        },
        ALL,
    ]
    twin = twin_of(routes, in_chain(**config))
    given: list[tuple[str, tuple[tuple[str, str], ...]]] = [
        ("/", ()),
        ("/", (("x-user", "me"),)),
        ("/", (("x-user", "you"),)),
        ("/", (("x-envoy-downstream-service-node", "b"),)),
        ("/", (("x-envoy-downstream-service-node", "c"),)),
        ("/other", (("x-user", "me"),)),
        ("/named", (("x-cluster", "up"),)),
        ("/named", (("x-cluster", "other"),)),
        ("/answer", ()),
        ("/weighted", ()),
        ("/headers", ()),
    ]
    calls = [Call(str(number), path, headers) for number, (path, headers) in enumerate(given)]
    check_alike(twin, calls)
    theirs, ours = stats_of(twin)
    assert ours == {name: value * (1 if "active" in name else 2) for name, value in theirs.items()}  # two doors
