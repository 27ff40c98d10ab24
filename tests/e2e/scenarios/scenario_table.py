"""The one table of scenarios, as data: the same for every door to the mesh.

A configuration is Envoy's. Backends are named a, b, c; `nobody` is an address where nobody listens. How a call ends is
said in a word: the name of the backend that answered well, `bad` for an error of a backend, or the mesh's flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from meshlib import CircuitBreaker

Json = dict[str, Any]
EVERY_TRY = "5xx,connect-failure,reset,unavailable"
LIMIT = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
ADAPTIVE = {
    "name": "adaptive",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        "gradient_controller_config": {
            "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
            "min_rtt_calc_params": {"interval": "60s"},
        },
    },
}
ALL = {"default_value": {"numerator": 100}}
CHI_SQUARED_1 = 23.9  # one degree of freedom, one in a million


@dataclass(frozen=True, slots=True)
class Calls:
    """Some calls and how they end: in order, or (a dict) shares of `count` calls by weight."""

    ends: tuple[str, ...] | dict[str, int]
    count: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    deadline: float | None = None
    """Seconds that the request being served has left."""
    together: bool = False
    within: float | None = None
    """Seconds in which each must end."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`clusters`: backends by cluster and priority; `behaviour`: good, bad, bad once, slow (0.3 s) or hang; `arrivals`:
    how many attempts each backend sees.
    """

    name: str
    calls: tuple[Calls, ...]
    routes: tuple[Json, ...]
    clusters: dict[str, tuple[tuple[str, ...], ...]]
    behaviour: dict[str, str] = field(default_factory=dict)
    arrivals: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Json] = field(default_factory=dict)
    filters: tuple[Json, ...] = ()
    breakers: dict[str, CircuitBreaker] = field(default_factory=dict)
    not_for: str = ""
    """A kind of door that has no such scenario."""


def to(cluster: str, *, match: Json | None = None, **action: Any) -> Json:
    return {"match": {"prefix": "/", **(match or {})}, "route": {"cluster": cluster, **action}}


def retry(retries: int, **policy: Any) -> Json:
    return {"retry_on": EVERY_TRY, "num_retries": retries, "retry_back_off": {"base_interval": "0.001s"}, **policy}


def header(name: str, **match: Any) -> Json:
    return {"headers": [{"name": name, **match}]}


HEDGED = {
    "timeout": "3s",
    "retry_policy": retry(1, per_try_timeout="0.15s"),
    "hedge_policy": {"hedge_on_per_try_timeout": True},
}

SCENARIOS = (
    # ------------------------------------------------------------------ route
    Scenario(
        "a header chooses the cluster",
        (
            Calls(("b",), headers={"x-canary": "yes"}),
            Calls(("a",), headers={"x-canary": "no"}),
            Calls(("a",)),
        ),
        (to("canary", match=header("x-canary", exact_match="yes")), to("stable")),
        {"stable": (("a",),), "canary": (("b",),)},
    ),
    Scenario(
        "no route matches",
        (Calls(("NR",)), Calls(("a",), headers={"x-known": "1"})),
        (to("all", match=header("x-known", present_match=True)),),
        {"all": (("a",),)},
        arrivals={"a": 1},
    ),
    Scenario(
        "a cluster without endpoints",
        (Calls(("UH",)),),
        (to("all"),),
        {"all": ((),)},
        not_for="guard",  # a function may need no endpoint, and is called
    ),
    Scenario(
        "endpoints take turns",
        (Calls({"a": 1, "b": 1, "c": 1}, 30),),
        (to("all"),),
        {"all": (("a", "b", "c"),)},
        arrivals={"a": 10, "b": 10, "c": 10},
    ),
    Scenario(
        "a weighted split",
        (Calls({"a": 80, "b": 20}, 300),),
        (
            {
                "match": {"prefix": "/"},
                "route": {
                    "weighted_clusters": {"clusters": [{"name": "v1", "weight": 80}, {"name": "v2", "weight": 20}]}
                },
            },
        ),
        {"v1": (("a",),), "v2": (("b",),)},
    ),
    # ------------------------------------------------------------------ retry
    Scenario(
        "a retry hides one error",
        (Calls(("a",)),),
        (to("all", retry_policy=retry(2)),),
        {"all": (("a",),)},
        {"a": "bad once"},
        arrivals={"a": 2},
    ),
    Scenario(
        "retries have an end",
        (Calls(("bad",)),),
        (to("all", retry_policy=retry(2)),),
        {"all": (("a",),)},
        {"a": "bad"},
        arrivals={"a": 3},
    ),
    Scenario(
        "nothing is retried unasked",
        (Calls(("bad",)),),
        (to("all"),),
        {"all": (("a",),)},
        {"a": "bad"},
        arrivals={"a": 1},
    ),
    Scenario(
        "nobody listens, and another does",
        (Calls(("a",) * 6),),
        (to("all", retry_policy=retry(1)),),
        {"all": (("a", "nobody"),)},
        arrivals={"a": 6},
    ),
    Scenario("nobody listens at all", (Calls(("UF",)),), (to("all"),), {"all": (("nobody",),)}),
    Scenario(
        "a try has a time of its own",
        (Calls(("b",) * 2, within=2.5),),
        (to("all", retry_policy=retry(1, per_try_timeout="0.3s")),),
        {"all": (("a", "b"),)},
        {"a": "hang"},
        arrivals={"b": 2},
    ),
    Scenario(
        "a slow try goes on beside another one, and the first answer counts",
        (
            Calls(("b",) * 2, within=1.5),
            Calls(("c",), headers={"x-patient": "1"}, within=1.5),
            Calls(("UT",), headers={"x-hopeless": "1"}, within=1.5),
        ),
        (
            to("patient", match=header("x-patient", present_match=True), **HEDGED),
            to("hopeless", match=header("x-hopeless", present_match=True), **{**HEDGED, "timeout": "0.4s"}),
            to("all", **HEDGED),
        ),
        {"all": (("a", "b"),), "patient": (("c", "a"),), "hopeless": (("a",),)},
        {"a": "hang", "c": "slow"},
        arrivals={"b": 2, "c": 1},
    ),
    # ------------------------------------------------------------------ circuit breakers
    Scenario(
        "the circuit opens",
        (Calls(("bad", "bad", "UO", "UO")),),
        (to("all"),),
        {"all": (("a",),)},
        {"a": "bad"},
        arrivals={"a": 2},
        breakers={"all": CircuitBreaker(fail_max=2, reset_timeout=60)},
    ),
    Scenario(
        "too many at once",
        (Calls({"a": 1, "UO": 3}, 4, together=True), Calls(("a",))),
        (to("all"),),
        {"all": (("a",),)},
        {"a": "slow"},
        arrivals={"a": 2},
        settings={"all": {"circuit_breakers": {"thresholds": [{"max_requests": 1}]}}},
    ),
    # ------------------------------------------------------------------ limit
    Scenario(
        "a local limit",
        (Calls(("a", "a", "RL", "RL")),),
        (to("all"),),
        {"all": (("a",),)},
        arrivals={"a": 2},
        filters=(
            {
                "name": "limit",
                "typed_config": {
                    "@type": LIMIT,
                    "stat_prefix": "quota",
                    "token_bucket": {"max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "3600s"},
                    "filter_enabled": ALL,
                    "filter_enforced": ALL,
                },
            },
        ),
    ),
    Scenario(
        "adaptive concurrency lets few in while it measures, and again when they have ended",
        (Calls({"a": 1, "UO": 3}, 12, together=True), Calls(("a",) * 4), Calls({"a": 1, "UO": 3}, 12, together=True)),
        (to("all"),),
        {"all": (("a",),)},
        {"a": "slow"},
        filters=(ADAPTIVE,),
        arrivals={"a": 10},
    ),
    # ------------------------------------------------------------------ deadline
    Scenario(
        "the route's timeout",
        (Calls(("UT",), within=2.0),),
        (to("all", timeout="0.3s"),),
        {"all": (("a",),)},
        {"a": "hang"},
        arrivals={"a": 1},
    ),
    Scenario(
        "the deadline of the request being served",
        (
            Calls(("UT",), deadline=0.3, within=2.0),
            Calls(("UT",), deadline=-1.0, within=0.3),
            Calls(("b",), deadline=5, headers={"x-fast": "1"}),
        ),
        (
            to("fast", match=header("x-fast", present_match=True)),
            to("slow", timeout="20s", retry_policy=retry(3)),
        ),
        {"slow": (("a",),), "fast": (("b",),)},
        {"a": "hang"},
        arrivals={"a": 1, "b": 1},
    ),
    # ------------------------------------------------------------------ failover
    Scenario(
        "a bad endpoint is ejected, and the next priority takes over",
        (Calls(("bad", "bad")), Calls(("b",) * 5)),
        (to("all"),),
        {"all": (("a",), ("b",))},
        {"a": "bad"},
        arrivals={"a": 2, "b": 5},
        settings={
            "all": {
                "outlier_detection": {"consecutive_5xx": 2, "base_ejection_time": "60s", "max_ejection_percent": 100}
            }
        },
    ),
    Scenario(
        "retries find the endpoint that is left",
        (Calls(("b",) * 6),),
        (
            to(
                "all",
                retry_policy=retry(1, retry_host_predicate=[{"name": "envoy.retry_host_predicates.previous_hosts"}]),
            ),
        ),
        {"all": (("a", "b"),)},
        {"a": "bad"},
    ),
)
